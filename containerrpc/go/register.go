// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// registerLease is asked for, and renewed after a third of it.
	registerLease = 15 * time.Second
	// registerTimeout bounds one call.
	registerTimeout = 3 * time.Second
	// registerRetry is the wait after a call that failed.
	registerRetry = time.Second
	// maxReplica is the longest id that a replica may have.
	maxReplica = 63
)

// registration keeps a container registered as a replica.
type registration struct {
	logger *slog.Logger
	cfg    Config
	conn   *grpc.ClientConn
	models clipperv1.ModelServiceClient
	req    *clipperv1.RegisterReplicaRequest

	registered bool // at least once, or perhaps
}

// newRegistration returns the registration of a container that listens at l.
func newRegistration(cfg Config, d *clipperv1.DescribeResponse, l net.Listener) (*registration, error) {
	if d.Model == "" || d.Version == "" {
		return nil, errors.New("to register, a container needs to know what it serves: set CLIPPER_MODEL_NAME and CLIPPER_MODEL_VERSION")
	}
	address, err := cfg.advertised(l.Addr())
	if err != nil {
		return nil, err
	}
	if _, err := cfg.registerToken(); err != nil {
		return nil, err
	}
	secure, err := cfg.registerCredentials()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(cfg.RegisterAddress, grpc.WithTransportCredentials(secure))
	if err != nil {
		return nil, fmt.Errorf("address to register at: %w", err)
	}
	return &registration{logger: cfg.Logger, cfg: cfg, conn: conn, models: clipperv1.NewModelServiceClient(conn), req: &clipperv1.RegisterReplicaRequest{
		Model: d.Model, Version: d.Version, Replica: replicaID(address), Address: address, Lease: durationpb.New(registerLease),
	}}, nil
}

// reachedAt returns where others reach a listener.
func reachedAt(a net.Addr) (string, error) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return "unix:" + a.String(), nil
	}
	if !tcp.IP.IsUnspecified() {
		return tcp.String(), nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("where do others reach this container? Set CLIPPER_ADVERTISE_ADDRESS: %w", err)
	}
	return net.JoinHostPort(name, fmt.Sprint(tcp.Port)), nil
}

// replicaID makes an id of an address, so that a container that is started again there is the same
// replica.
func replicaID(address string) string {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '-'
	}, address)
	id = id[max(0, len(id)-maxReplica):]
	return strings.TrimLeft(id, "._-")
}

// keep registers and renews until ctx ends, and then gives the registration up, which is no error; it
// fails when Clipper does not want such a replica.
func (r *registration) keep(ctx context.Context) error {
	defer r.leave()
	said := ""
	for {
		wait := registerLease / 3
		err := r.register(ctx, r.req)
		r.registered = r.registered || err == nil || ctx.Err() != nil
		switch {
		case ctx.Err() != nil:
			return nil
		case status.Code(err) == codes.InvalidArgument:
			return fmt.Errorf("container: register at Clipper: %s", status.Convert(err).Message())
		case err != nil:
			wait = registerRetry
			if text := status.Convert(err).Message(); text != said {
				said = text
				r.logger.Warn("not registered at Clipper, trying again", "cause", text)
			}
		default:
			said = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// leave gives the registration up, if there is one.
func (r *registration) leave() {
	if !r.registered {
		return
	}
	r.req.Lease = durationpb.New(0)
	if err := r.register(context.Background(), r.req); err != nil {
		r.logger.Warn("the registration at Clipper is left to expire", "cause", status.Convert(err).Message())
	}
}

func (r *registration) register(ctx context.Context, req *clipperv1.RegisterReplicaRequest) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	var err error
	if req.Token, err = r.cfg.registerToken(); err != nil {
		return err
	}
	_, err = r.models.RegisterReplica(ctx, req)
	return err
}

func (r *registration) close() { _ = r.conn.Close() }
