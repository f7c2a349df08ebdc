// SPDX-License-Identifier: Apache-2.0

// Package layer runs the model abstraction layer in this process, with containers in processes of
// their own, and puts loads on it directly, so that no edge limits what is measured.
package layer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/serving"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	model, version = "model", "1"
	cacheBytes     = 256 << 20
	startTimeout   = time.Minute
	stopTimeout    = 5 * time.Second
	// rowMemory bounds the rows that are kept; the same row comes again only after all the others,
	// so that no two that are under way are equal.
	rowMemory = 16 << 20
	maxRows   = 1 << 16
)

// Config says what is served.
type Config struct {
	// Containers has the command of each replica that is started.
	Containers [][]string
	// Addresses are replicas that somebody else runs, in addition.
	Addresses []string
	// Environment is added to that of the containers.
	Environment []string
	// Batching is how queries are batched.
	Batching *clipperv1.Batching
	// Cached turns the prediction cache on.
	Cached bool
	// Floats is the width of a query: so many float32. At least 2; default 16, which is 64 bytes.
	Floats int
}

// Layer is the layer with one model version and its replicas.
type Layer struct {
	// Version is what serves.
	Version *serving.Version
	// Rows are inputs, all different from each other.
	Rows [][]*clipperv1.Tensor
	// Registry has the layer's measurements.
	Registry *prometheus.Registry

	cfg    Config
	folder string
	cache  *cache.Cache

	mu         sync.Mutex
	containers []*system.Process
}

// Start starts the containers and the layer, and returns when every replica is ready.
func Start(ctx context.Context, cfg Config) (_ *Layer, err error) {
	if cfg.Floats == 0 {
		cfg.Floats = 16
	}
	l := &Layer{cfg: cfg, Registry: prometheus.NewRegistry(), containers: make([]*system.Process, len(cfg.Containers))}
	l.Rows = MakeRows(cfg.Floats)
	if l.folder, err = os.MkdirTemp("", "clipper-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Stop()
		}
	}()
	if l.cache, err = cache.New(cacheBytes); err != nil {
		return nil, err
	}
	m, err := metrics.New(l.Registry)
	if err != nil {
		return nil, err
	}
	l.Version, err = serving.New(serving.Config{
		Model: model, Version: version, Batching: cfg.Batching, Cache: &clipperv1.Cache{Disabled: !cfg.Cached},
	}, serving.Deps{Cache: l.cache, Metrics: m, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	for i := range cfg.Containers {
		if err := l.Launch(i); err != nil {
			return nil, err
		}
		l.Version.Connect(strconv.Itoa(i), "unix:"+l.socket(i))
	}
	for i, address := range cfg.Addresses {
		l.Version.Connect("address "+strconv.Itoa(i), address)
	}
	return l, l.AwaitReady(ctx)
}

// MakeRows returns rows of so many float32, at least 2. All differ, and there are so many that none
// comes again while it is under way.
func MakeRows(floats int) [][]*clipperv1.Tensor {
	width := 4 * floats
	n := min(maxRows, rowMemory/width)
	data := make([]byte, n*width)
	tensors := make([]clipperv1.Tensor, n)
	rows := make([][]*clipperv1.Tensor, n)
	for i := range rows {
		d := data[i*width : (i+1)*width : (i+1)*width]
		// Between 0 and 1, like the pixels of an image. The first two tell the rows apart.
		for j := range floats {
			binary.LittleEndian.PutUint32(d[4*j:], math.Float32bits(float32((i*31+j*17)%97)/97))
		}
		binary.LittleEndian.PutUint32(d, math.Float32bits(float32(i%256)/256))
		binary.LittleEndian.PutUint32(d[4:], math.Float32bits(float32(i/256)/256))
		t := &tensors[i]
		t.DataType, t.Shape, t.Data = clipperv1.DataType_DATA_TYPE_FLOAT32, []int64{int64(floats)}, d
		rows[i] = []*clipperv1.Tensor{t}
	}
	return rows
}

func (l *Layer) socket(i int) string { return filepath.Join(l.folder, strconv.Itoa(i)) }

// Launch starts the container of replica i; the layer connects to it by itself. One that ran before
// must have ended.
func (l *Layer) Launch(i int) error {
	command := l.cfg.Containers[i]
	p, err := system.Start(append(slices.Clone(l.cfg.Environment),
		launcher.EnvAddress+"=unix:"+l.socket(i), launcher.EnvModelName+"="+model, launcher.EnvModelVersion+"="+version,
		launcher.EnvExitWithParent+"=1"), command[0], command[1:]...)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.containers[i] = p
	return nil
}

// Container returns the process of replica i.
func (l *Layer) Container(i int) *system.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.containers[i]
}

// AwaitReady waits until every replica is ready.
func (l *Layer) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ready, message := 0, ""
		for i := range l.cfg.Containers {
			select {
			case <-l.Container(i).Done():
				return fmt.Errorf("the container of replica %d has ended:\n%s", i, l.Container(i).Output())
			default:
			}
		}
		for _, r := range l.Version.Replicas() {
			if r.State == clipperv1.ReplicaState_REPLICA_STATE_READY {
				ready++
			} else {
				message = r.Message
			}
		}
		wanted := len(l.cfg.Containers) + len(l.cfg.Addresses)
		if ready == wanted {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d replicas are ready: %s: %w", ready, wanted, message, ctx.Err())
		}
	}
}

// SetBatching changes how queries are batched. The replicas' learned latencies are kept.
func (l *Layer) SetBatching(b *clipperv1.Batching) error {
	return l.Version.Update(b, &clipperv1.Cache{Disabled: !l.cfg.Cached})
}

// SetCached turns the prediction cache on or off.
func (l *Layer) SetCached(on bool) error {
	l.cfg.Cached = on
	return l.SetBatching(l.cfg.Batching)
}

// Stop ends the layer and the containers.
func (l *Layer) Stop() {
	if l.Version != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		l.Version.Close(ctx)
		cancel()
	}
	for _, p := range l.containers {
		if p != nil {
			p.Kill()
		}
	}
	if l.cache != nil {
		l.cache.Close()
	}
	_ = os.RemoveAll(l.folder)
}

// Open puts an open load on the layer: each query has the objective as its deadline. It fails when a
// query failed for a reason that has nothing to do with load.
func (l *Layer) Open(ctx context.Context, cfg load.OpenConfig) (load.OpenMeasurement, error) {
	o := load.NewOpen(cfg)
	requests := make([]prediction.Request, len(cfg.Schedule))
	out := &outcomes{done: o.Done}
	for i := range requests {
		requests[i] = prediction.Request{Context: ctx, Input: tensor.FromTensors(l.Rows[i%len(l.Rows)]), Receiver: out, Tag: i}
	}
	m := o.Run(ctx, func(i int, due time.Time) {
		requests[i].Deadline = due.Add(cfg.Objective)
		l.Version.Submit(&requests[i])
	})
	if err := ctx.Err(); err != nil {
		return m, err
	}
	if m.Lost > 0 {
		return m, fmt.Errorf("%d of %d queries were never answered", m.Lost, m.Offered)
	}
	return m, out.failure()
}

// outcomes takes the results of a load. Safe for concurrent use.
type outcomes struct {
	done func(i int, o load.Outcome)

	mu    sync.Mutex
	first error
}

// Receive implements prediction.Receiver.
func (o *outcomes) Receive(i int, r prediction.Result) {
	if r.Err == nil {
		o.done(i, load.Answered)
		return
	}
	o.take(i, r.Err.Status, r.Err.Message)
}

// take notes what became of query i.
func (o *outcomes) take(i int, s clipperv1.PredictionStatus, message string) {
	switch s {
	case clipperv1.PredictionStatus_PREDICTION_STATUS_OK:
		o.done(i, load.Answered)
	case clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED:
		o.done(i, load.Refused)
	case clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE:
		o.done(i, load.Expired)
	default:
		o.fail(i, fmt.Errorf("a query failed: %v: %s", s, message))
	}
}

// fail notes that query i failed, and the first error.
func (o *outcomes) fail(i int, err error) {
	o.mu.Lock()
	if o.first == nil {
		o.first = err
	}
	o.mu.Unlock()
	o.done(i, load.Failed)
}

func (o *outcomes) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}
