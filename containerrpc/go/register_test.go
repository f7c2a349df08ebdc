// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// admin records registrations, and answers them with an error if it has one.
type admin struct {
	came chan *clipperv1.RegisterReplicaRequest

	mu  sync.Mutex
	err error
}

func newAdmin(err error) *admin {
	return &admin{came: make(chan *clipperv1.RegisterReplicaRequest, 100), err: err}
}

func (a *admin) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *admin) register(req *clipperv1.RegisterReplicaRequest) (*clipperv1.RegisterReplicaResponse, error) {
	a.came <- proto.CloneOf(req)
	a.mu.Lock()
	defer a.mu.Unlock()
	return &clipperv1.RegisterReplicaResponse{Lease: req.Lease}, a.err
}

// asServer is the admin at the other end of a connection.
type asServer struct {
	clipperv1.UnimplementedModelServiceServer
	*admin
}

func (a asServer) RegisterReplica(_ context.Context, req *clipperv1.RegisterReplicaRequest) (*clipperv1.RegisterReplicaResponse, error) {
	return a.register(req)
}

// asClient is the admin without a connection.
type asClient struct {
	clipperv1.ModelServiceClient
	*admin
}

func (a asClient) RegisterReplica(_ context.Context, req *clipperv1.RegisterReplicaRequest, _ ...grpc.CallOption) (*clipperv1.RegisterReplicaResponse, error) {
	return a.register(req)
}

type nothing struct{}

func (nothing) Describe() *clipperv1.DescribeResponse { return &clipperv1.DescribeResponse{} }
func (nothing) Predict(context.Context, *Batch) (*Result, error) {
	return &Result{}, nil
}

// serveRegistered runs a container that registers with a, over a connection.
func serveRegistered(t *testing.T, a *admin, cfg Config, listen string) (stop func(), done chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	clipperv1.RegisterModelServiceServer(g, asServer{admin: a})
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		<-served
	})
	cfg.Address, cfg.RegisterAddress = listen, l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	done = make(chan error, 1)
	go func() { done <- Run(ctx, cfg, nothing{}) }()
	return stop, done
}

func TestRegister(t *testing.T) {
	socket := "unix:" + filepath.Join(t.TempDir(), "s")
	for name, tc := range map[string]struct {
		listen, advertise, address string
	}{
		"where it listens":  {socket, "", socket},
		"what is set":       {"127.0.0.1:0", "10.0.0.7:9000", "10.0.0.7:9000"},
		"behind every host": {"0.0.0.0:0", "model-7.models:9000", "model-7.models:9000"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdmin(nil)
			stop, done := serveRegistered(t, a, Config{Model: "m", Version: "v1", AdvertiseAddress: tc.advertise}, tc.listen)
			req := <-a.came
			require.Equal(t, "m", req.Model)
			require.Equal(t, "v1", req.Version)
			require.Equal(t, tc.address, req.Address)
			require.Equal(t, replicaID(tc.address), req.Replica)
			require.Equal(t, registerLease, req.Lease.AsDuration())
			stop()
			require.Zero(t, (<-a.came).Lease.AsDuration(), "it leaves")
			require.NoError(t, <-done)
		})
	}
}

func TestRegister_refused(t *testing.T) {
	a := newAdmin(status.Error(codes.InvalidArgument, "replica: too odd"))
	_, done := serveRegistered(t, a, Config{Model: "m", Version: "v1"}, "127.0.0.1:0")
	require.ErrorContains(t, <-done, "too odd")

	a = newAdmin(nil)
	_, done = serveRegistered(t, a, Config{Model: "m"}, "127.0.0.1:0")
	require.ErrorContains(t, <-done, "CLIPPER_MODEL_VERSION")
}

func TestRegister_renews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmin(nil)
		r := &registration{logger: slog.New(slog.DiscardHandler), models: asClient{admin: a}, req: &clipperv1.RegisterReplicaRequest{Model: "m"}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.keep(ctx) }()
		count := func() int {
			synctest.Wait()
			n := len(a.came)
			for range n {
				<-a.came
			}
			return n
		}
		require.Equal(t, 1, count())
		time.Sleep(time.Minute)
		require.Equal(t, 12, count(), "three times in each lease")
		a.set(status.Error(codes.Unavailable, "gone"))
		time.Sleep(registerLease / 3)
		require.Equal(t, 1, count())
		time.Sleep(10 * time.Second)
		require.Equal(t, 10, count(), "it tries again")
		a.set(nil)
		time.Sleep(time.Minute)
		count()
		stop()
		require.NoError(t, <-done)
		require.Equal(t, 1, count(), "it leaves")
	})
}

func TestReplicaID(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.7:9000":      "10.0.0.7-9000",
		"[::1]:9000":         "1--9000",
		"unix:/run/m/a.sock": "unix--run-m-a.sock",
		"a-name-that-is-longer-than-what-fits-into-an-id.models.svc.cluster.local:9000": "longer-than-what-fits-into-an-id.models.svc.cluster.local-9000",
	} {
		id := replicaID(address)
		require.Equal(t, want, id)
		require.Regexp(t, `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`, id)
	}
}
