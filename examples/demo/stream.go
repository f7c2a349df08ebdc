// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// image is one handwritten digit.
type image struct {
	Image []float64 `json:"image"`
	Digit int       `json:"digit"`
}

func load(file string) ([]image, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var images []image
	for s := bufio.NewScanner(f); s.Scan(); {
		var i image
		if err := json.Unmarshal(s.Bytes(), &i); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		images = append(images, i)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%s has no images", file)
	}
	return images, nil
}

// phase is a part of the stream.
type phase int

const (
	before phase = iota
	failure
	after
	phases
)

func (p phase) String() string { return [...]string{"before", "failure", "after"}[p] }

// score counts right answers.
type score struct{ right, all int }

func (s *score) add(right bool) {
	s.all++
	if right {
		s.right++
	}
}

func (s score) accuracy() float64 { return float64(s.right) / float64(max(1, s.all)) }

// demo sends the stream and keeps the counts.
type demo struct {
	query    clipperv1.QueryServiceClient
	feedback clipperv1.FeedbackServiceClient
	apps     clipperv1.ApplicationServiceClient
	models   clipperv1.ModelServiceClient

	ensemble, bandit string
	images           []image

	mu        sync.Mutex
	scores    [phases]map[string]*score // By model, and by application.
	latencies []time.Duration
	defaults  int
	answers   int
	weights   [phases]map[string]float64
	best      string // The model that is spoiled.
	elapsed   time.Duration
}

func newDemo(query, admin grpc.ClientConnInterface, ensemble, bandit string, images []image) *demo {
	d := &demo{
		query:    clipperv1.NewQueryServiceClient(query),
		feedback: clipperv1.NewFeedbackServiceClient(query),
		apps:     clipperv1.NewApplicationServiceClient(admin),
		models:   clipperv1.NewModelServiceClient(admin),
		ensemble: ensemble,
		bandit:   bandit,
		images:   images,
	}
	for p := range d.scores {
		d.scores[p] = make(map[string]*score)
	}
	return d
}

// stream sends every image, in a random order, as often as each phase says, so that the phases can
// be compared: all before the failure, while the best model is spoiled, and after it.
func (d *demo) stream(ctx context.Context, passes [phases]int, callers int, spoiled string) error {
	order := rand.New(rand.NewPCG(1, 2))
	total := 0
	for _, n := range passes {
		total += n * len(d.images)
	}
	bar := newBar(total)
	start := time.Now()
	var healthy string
	for p, n := range passes {
		switch phase(p) {
		case failure:
			d.best = d.bestModel()
			version, err := d.switchVersion(ctx, d.best, spoiled)
			if err != nil {
				return err
			}
			healthy = version
			bar.note("the labels of %s, the best model, are shuffled now (version %s)", d.best, spoiled)
		case after:
			if _, err := d.switchVersion(ctx, d.best, healthy); err != nil {
				return err
			}
			bar.note("%s is healed (version %s)", d.best, healthy)
		}
		g, sending := errgroup.WithContext(ctx)
		g.SetLimit(callers)
		for range n {
			for _, i := range order.Perm(len(d.images)) {
				g.Go(func() error {
					defer func() { bar.step(d.summary(phase(p))) }()
					return d.send(sending, phase(p), d.images[i])
				})
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		weights, err := d.selectionWeights(ctx)
		if err != nil {
			return err
		}
		d.weights[p] = weights
	}
	d.elapsed = time.Since(start)
	bar.end()
	return nil
}

// send asks both applications about one image and tells them the truth.
func (d *demo) send(ctx context.Context, p phase, i image) error {
	data := make([]byte, 0, 8*len(i.Image))
	for _, v := range i.Image {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	input := []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{int64(len(i.Image))}, Data: data}}
	for _, app := range []string{d.ensemble, d.bandit} {
		begin := time.Now()
		answer, err := d.query.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: input})
		if err != nil {
			return fmt.Errorf("query %s: %w", app, err)
		}
		d.count(p, app, i.Digit, answer, time.Since(begin))
		_, err = d.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{
			Application: app,
			FeedbackId:  answer.FeedbackId,
			Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(i.Digit))},
		})
		if err != nil {
			return fmt.Errorf("feedback to %s: %w", app, err)
		}
	}
	return nil
}

func (d *demo) count(p phase, app string, digit int, answer *clipperv1.QueryResponse, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers++
	d.latencies = append(d.latencies, took)
	if answer.IsDefault {
		d.defaults++
	}
	d.score(p, app).add(label(answer.Outputs) == digit)
	if app != d.ensemble {
		return
	}
	for _, m := range answer.Predictions {
		if m.Status == clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
			d.score(p, m.Model).add(label(m.Outputs) == digit)
		}
	}
}

func (d *demo) score(p phase, name string) *score {
	s := d.scores[p][name]
	if s == nil {
		s = &score{}
		d.scores[p][name] = s
	}
	return s
}

// label reads the digit of an answer; the models' labels are 64-bit integers.
func label(outputs []*clipperv1.Tensor) int {
	if len(outputs) != 1 || len(outputs[0].Data) != 8 {
		return -1
	}
	return int(int64(binary.LittleEndian.Uint64(outputs[0].Data)))
}

// bestModel returns the model with the most right answers so far.
func (d *demo) bestModel() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	best := ""
	for name, s := range d.scores[before] {
		if name == d.ensemble || name == d.bandit {
			continue
		}
		if best == "" || s.accuracy() > d.scores[before][best].accuracy() {
			best = name
		}
	}
	return best
}

// switchVersion makes a version current and returns the one that was.
func (d *demo) switchVersion(ctx context.Context, model, version string) (string, error) {
	m, err := d.models.GetModel(ctx, &clipperv1.GetModelRequest{Model: model})
	if err != nil {
		return "", err
	}
	_, err = d.models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: version})
	return m.Model.CurrentVersion, err
}

func (d *demo) selectionWeights(ctx context.Context) (map[string]float64, error) {
	state, err := d.apps.GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: d.ensemble})
	if err != nil {
		return nil, err
	}
	weights := make(map[string]float64)
	for _, m := range state.Models {
		weights[m.Model] = m.Weight
	}
	return weights, nil
}
