// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// startLimit is how long a container may take to load its model.
const startLimit = 2 * time.Minute

// served is a container that runs, and the one stream to it.
type served struct {
	process    *system.Process
	connection *grpc.ClientConn
	stream     grpc.BidiStreamingClient[clipperv1.PredictRequest, clipperv1.PredictResponse]
	id         uint64
}

// start runs a container on a unix socket in folder and waits until it can predict.
func start(ctx context.Context, folder string, env []string, program ...string) (_ *served, err error) {
	address := "unix:" + filepath.Join(folder, "container")
	s := &served{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.process, err = system.Start(append(env, "CLIPPER_CONTAINER_ADDRESS="+address), program[0], program[1:]...); err != nil {
		return nil, err
	}
	const unlimited = 1 << 30
	s.connection, err = grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(unlimited), grpc.MaxCallSendMsgSize(unlimited)))
	if err != nil {
		return nil, err
	}
	loading, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	go func() { // What has ended will never serve.
		select {
		case <-s.process.Done():
			cancel()
		case <-loading.Done():
		}
	}()
	watch, err := grpc_health_v1.NewHealthClient(s.connection).Watch(loading, &grpc_health_v1.HealthCheckRequest{})
	for err == nil {
		var health *grpc_health_v1.HealthCheckResponse
		if health, err = watch.Recv(); err == nil && health.Status == grpc_health_v1.HealthCheckResponse_SERVING {
			s.stream, err = clipperv1.NewModelContainerServiceClient(s.connection).Predict(ctx)
			return s, err
		}
	}
	s.process.Stop()
	return nil, fmt.Errorf("the container did not become ready: %w\n%s", err, s.process.Output())
}

// stop ends the container.
func (s *served) stop() {
	if s.connection != nil {
		_ = s.connection.Close()
	}
	if s.process != nil {
		s.process.Stop()
	}
}

// drive sends a batch again and again for a while, with so many under way, and returns the batches answered in a second and how
// long each took.
func (s *served) drive(batch *clipperv1.PredictRequest, underWay int, window time.Duration) (perSecond float64, latencies []time.Duration, err error) {
	sent := map[uint64]time.Time{}
	send := func() error {
		s.id++
		batch.Id = s.id
		sent[s.id] = time.Now()
		return s.stream.Send(batch)
	}
	for range underWay {
		if err := send(); err != nil {
			return 0, nil, s.broken(err)
		}
	}
	begin := time.Now()
	for len(sent) > 0 {
		response, err := s.stream.Recv()
		if err != nil {
			return 0, nil, s.broken(err)
		}
		if response.Error != nil {
			return 0, nil, errors.New(response.Error.GetMessage())
		}
		if len(response.RowErrors) > 0 {
			return 0, nil, errors.New(response.RowErrors[0].GetError().GetMessage())
		}
		at, known := sent[response.Id]
		if !known {
			return 0, nil, fmt.Errorf("an answer to batch %d, which was not under way", response.Id)
		}
		latencies = append(latencies, time.Since(at))
		delete(sent, response.Id)
		if time.Since(begin) < window {
			if err := send(); err != nil {
				return 0, nil, s.broken(err)
			}
		}
	}
	return float64(len(latencies)) / time.Since(begin).Seconds(), latencies, nil
}

func (s *served) broken(err error) error {
	s.process.Stop()
	return fmt.Errorf("the stream broke: %w\n%s", err, s.process.Output())
}
