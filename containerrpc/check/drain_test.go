// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// containerVariable says which container the process of this test is to be.
	containerVariable = "CLIPPER_TEST_CONTAINER"
	// slowTime is what the slow model takes: longer than a batch is on its way.
	slowTime = 3 * takingTime
)

// slow answers each batch of many after a time.
type slow struct{}

func (slow) Describe() *clipperv1.DescribeResponse { return &clipperv1.DescribeResponse{} }

func (slow) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	if b.Rows > 1 {
		time.Sleep(slowTime) // As a model computes.
	}
	return &container.Result{Outputs: b.Inputs}, nil
}

// forgetful answers single rows, and ends its streams on a signal whatever else it has taken.
type forgetful struct {
	clipperv1.UnimplementedModelContainerServiceServer
	stop context.Context
}

func (forgetful) Describe(context.Context, *clipperv1.DescribeRequest) (*clipperv1.DescribeResponse, error) {
	return &clipperv1.DescribeResponse{}, nil
}

func (f forgetful) Predict(s grpc.BidiStreamingServer[clipperv1.PredictRequest, clipperv1.PredictResponse]) error {
	go func() {
		for {
			req, err := s.Recv()
			if err != nil {
				return
			}
			if req.Rows == 1 {
				_ = s.Send(&clipperv1.PredictResponse{Id: req.Id, Outputs: req.Inputs})
			}
		}
	}()
	<-f.stop.Done()
	return nil
}

// TestContainerProcess is the process of a container that TestDrain starts.
func TestContainerProcess(t *testing.T) {
	kind, address := os.Getenv(containerVariable), os.Getenv("CLIPPER_CONTAINER_ADDRESS")
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	switch kind {
	case "":
		t.Skip("is started by TestDrain")
	case "deaf":
		stop = context.Background()
	case "lingers":
		defer func() { select {} }()
	case "dies":
		cancel() // The signal ends the process again.
		stop = context.Background()
	case "forgets":
		l, err := new(net.ListenConfig).Listen(stop, "unix", address)
		require.NoError(t, err)
		g := grpc.NewServer()
		clipperv1.RegisterModelContainerServiceServer(g, forgetful{stop: stop})
		grpc_health_v1.RegisterHealthServer(g, health.NewServer())
		context.AfterFunc(stop, g.GracefulStop)
		require.NoError(t, g.Serve(l))
		return
	}
	require.NoError(t, container.Run(stop, container.Config{Address: "unix:" + address}, slow{}))
}

func TestDrain(t *testing.T) {
	for kind, want := range map[string]struct {
		status  Status
		message string
	}{
		"slow":    {Passed, "1 of 2 batches answered"},
		"forgets": {Warned, "none of 2 batches was answered"},
		"deaf":    {Failed, "the stream was open"},
		"lingers": {Failed, "exit with 0 when the streams have ended"},
		"dies":    {Failed, "after SIGTERM the stream ended with Unavailable"},
	} {
		t.Run(kind, func(t *testing.T) {
			address := filepath.Join(t.TempDir(), "s")
			process := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestContainerProcess$")
			process.Env = append(os.Environ(), containerVariable+"="+kind, "CLIPPER_CONTAINER_ADDRESS="+address)
			require.NoError(t, process.Start())
			t.Cleanup(func() {
				_ = process.Process.Kill()
				_ = process.Wait()
			})
			c := &checker{address: "unix:" + address, Options: Options{Timeout: 20 * time.Second, DrainPID: process.Process.Pid}}
			require.NoError(t, c.connect())
			defer c.conn.Close()
			for _, step := range []func(*checker, context.Context) (string, error){(*checker).reachable, (*checker).health, (*checker).describe} {
				_, err := step(c, t.Context())
				require.NoError(t, err)
			}
			if kind == "deaf" || kind == "lingers" {
				c.Timeout = 2 * slowTime // It is over in every case.
			}
			message, err := c.drain(t.Context())
			status := Passed
			if err != nil {
				status, message = Failed, err.Error()
				if v, ok := err.(*verdict); ok { //nolint:errorlint // It is not wrapped.
					status = v.status
				}
			}
			require.Equal(t, want.status, status, message)
			require.Contains(t, message, want.message)
		})
	}
}
