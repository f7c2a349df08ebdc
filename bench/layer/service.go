// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/abstraction"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/process"
	"github.com/clipper-serving/clipper/bench/load"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Service is the whole abstraction service in this process: documents, launcher and versions that
// come and go.
type Service struct {
	// Models is its administration.
	Models clipperv1.ModelServiceClient

	service *abstraction.Service
	rows    [][]*clipperv1.Tensor
	stops   []func()
}

// StartService starts a service without models. It runs commands as processes; what else it is to run
// needs further launchers, which the caller closes, after the service.
func StartService(ctx context.Context, further ...launcher.Launcher) (_ *Service, err error) {
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	s := &Service{rows: MakeRows(16), stops: []func(){func() { _ = os.RemoveAll(folder) }}}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := storebolt.Open(ctx, filepath.Join(folder, "abstraction.db"))
	if err != nil {
		return nil, err
	}
	s.stops = append(s.stops, func() { _ = db.Close() })
	processes, err := process.New(process.Config{
		RunDirectory: filepath.Join(folder, "run"), LogDirectory: filepath.Join(folder, "logs"), StopTimeout: stopTimeout,
	}, quiet)
	if err != nil {
		return nil, err
	}
	s.stops = append(s.stops, func() { _ = processes.Close() })
	s.service, err = abstraction.New(abstraction.Config{CacheSize: cacheBytes, DrainTimeout: stopTimeout}, abstraction.Deps{
		Store: db.Documents(), Launchers: append([]launcher.Launcher{processes}, further...), Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, err
	}
	running, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		_ = s.service.Run(running)
		close(ended)
	}()
	s.stops = append(s.stops, func() {
		end()
		<-ended
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = s.service.Close(ctx)
	})
	conn := inprocess.New(nil, nil)
	s.service.Register(conn)
	s.Models = clipperv1.NewModelServiceClient(conn)
	return s, nil
}

// Stop ends the service and its containers.
func (s *Service) Stop() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

// Await waits until a version of the model is in a state, and is current if that is asked for.
func (s *Service) Await(ctx context.Context, model, version string, state clipperv1.ModelState, current bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := s.Models.GetModel(ctx, &clipperv1.GetModelRequest{Model: model})
		if err != nil {
			return err
		}
		message := "there is no such version"
		for _, v := range m.GetModel().GetVersions() {
			if v.Version == version {
				if v.State == state && (!current || m.GetModel().GetCurrentVersion() == version) {
					return nil
				}
				message = v.State.String() + ": " + v.StateMessage
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("version %s is not as expected: %s", version, message)
		}
	}
}

// Open puts an open load on the current version of a model. A call of the service waits for its
// answer, so each query has a goroutine. answered, which may be nil, is called with the version
// that answered a query; it must be safe for concurrent use.
func (s *Service) Open(ctx context.Context, model string, cfg load.OpenConfig, answered func(version string)) (load.OpenMeasurement, error) {
	o := load.NewOpen(cfg)
	out := &outcomes{done: o.Done}
	references := []*internalv1.ModelReference{{Model: model}}
	var calls sync.WaitGroup
	m := o.Run(ctx, func(i int, due time.Time) {
		calls.Go(func() {
			ctx, cancel := context.WithDeadline(ctx, due.Add(cfg.Objective))
			defer cancel()
			predictions, err := s.service.Predict(ctx, references, tensor.FromTensors(s.rows[i%len(s.rows)]))
			if err != nil {
				out.fail(i, err)
				return
			}
			p := predictions[0]
			if answered != nil && p.Status == clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
				answered(p.Version)
			}
			out.take(i, p.Status, p.Message)
		})
	})
	calls.Wait()
	if err := ctx.Err(); err != nil {
		return m, err
	}
	return m, out.failure()
}
