// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/certs"
)

func TestInstance(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		store, advertise, listens, want string
	}{
		"a store of its own": {"", "10.0.0.1:1", "127.0.0.1:1367", ""},
		"a file":             {"file:/a.db", "", "127.0.0.1:1367", ""},
		"where it listens":   {"redis://r:6379", "", "127.0.0.1:1367", "127.0.0.1:1367"},
		"socket":             {"redis://r:6379", "", "unix:/run/a.sock", "unix:/run/a.sock"},
		"every address":      {"redis://r:6379", "", "0.0.0.0:1367", net.JoinHostPort(host, "1367")},
		"every address, six": {"unix:///run/redis.sock", "", "[::]:1367", net.JoinHostPort(host, "1367")},
		"what is set":        {"redis://r:6379", "clipper-0.clipper:1367", "0.0.0.0:1367", "clipper-0.clipper:1367"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Abstraction{StoreConfig: StoreConfig{Store: tc.store}, Advertise: tc.advertise, InstanceLease: time.Second}
			i, err := c.instance(tc.listens)
			require.NoError(t, err)
			if tc.want == "" {
				require.Nil(t, i)
				return
			}
			require.Equal(t, tc.want, i.Address)
			require.Equal(t, time.Second, i.Lease)
		})
	}
}

// answering is a server that counts calls.
type answering struct {
	healthpb.UnimplementedHealthServer
	address string
	stop    func()
	calls   chan string
}

func (a *answering) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	a.calls <- a.address
	return &healthpb.HealthCheckResponse{}, nil
}

func serveAt(t *testing.T, network, listen string, calls chan string) *answering {
	t.Helper()
	l, err := net.Listen(network, listen)
	require.NoError(t, err)
	a := &answering{address: l.Addr().String(), calls: calls}
	if network == "unix" {
		a.address = "unix:" + a.address
	}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, a)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	a.stop = g.Stop
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return a
}

// A connection keeps to one instance while it lives, and goes to another one when that is gone, be it
// configured or found.
func TestDial(t *testing.T) {
	calls := make(chan string, 1)
	one := serveAt(t, "tcp", "127.0.0.1:0", calls)
	two := serveAt(t, "unix", filepath.Join(t.TempDir(), "s"), calls)
	var conn *grpc.ClientConn
	err := app.Run(t.Context(), app.Options{Name: "test", Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}, func(a *app.App) error {
		var also func([]string)
		var err error
		conn, also, err = dial(a, "abstraction service", []string{one.address}, certs.Client{})
		require.NoError(t, err)
		ask := func() string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
				if status.Code(err) == codes.Unavailable { // The connection broke under the call.
					continue
				}
				require.NoError(t, err)
				return <-calls
			}
		}
		require.Equal(t, one.address, ask())
		also([]string{two.address, one.address})
		for range 10 {
			require.Equal(t, one.address, ask())
		}
		one.stop()
		require.Equal(t, two.address, ask())
		return context.Canceled // Nothing is to run.
	})
	require.ErrorIs(t, err, context.Canceled)
}
