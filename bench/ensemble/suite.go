// SPDX-License-Identifier: Apache-2.0

package ensemble

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/cifar"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/recorded"
)

// batch is how many queries go together.
const batch = 500

// suite is the system with the networks in each form of their output.
type suite struct {
	*cifar.System
	models   map[string][]*clipperv1.ApplicationModel
	queries  clipperv1.QueryServiceClient
	feedback clipperv1.FeedbackServiceClient
}

// panel is an ensemble.
type panel struct {
	name   string
	output string // of the networks: labels or softmax
	// learns is whether its weights do; with a floor, or the policy's default.
	learns bool
	floor  float64
	// apps has for each half of the images the application that learned from it, and is tested on the other.
	apps [2]string
}

// reply is what came of one image.
type reply struct {
	image    int
	answered bool // not with the default output
	class    int64
	networks []int64 // what each said
}

// prepare creates a panel's applications and lets them learn.
func (s *suite) prepare(ctx context.Context, name string, p *panel) error {
	parameters := map[string]float64{}
	switch {
	case !p.learns:
		parameters["eta"] = 0
	case p.floor > 0:
		parameters["floor"] = p.floor
	}
	defaultOutput := structpb.NewNumberValue(-1)
	if p.output != "labels" {
		none := make([]any, s.Networks[0].Columns())
		for k := range none {
			none[k] = 0.0
		}
		list, err := structpb.NewList(none)
		if err != nil {
			return err
		}
		defaultOutput = structpb.NewListValue(list)
	}
	for half := range p.apps {
		p.apps[half] = fmt.Sprintf("%s-%d", name, half)
		err := s.CreateApplication(ctx, &clipperv1.Application{
			Name: p.apps[half], Models: s.models[p.output],
			Policy:           &clipperv1.Policy{Name: "exp4", Parameters: parameters},
			DefaultOutput:    defaultOutput,
			LatencyObjective: durationpb.New(10 * time.Second),
		})
		if err != nil {
			return err
		}
		if !p.learns {
			continue
		}
		for _, image := range s.half(half) {
			if err := s.teach(ctx, p.apps[half], image); err != nil {
				return fmt.Errorf("learn: %w", err)
			}
		}
	}
	return nil
}

// half returns the images of one half.
func (s *suite) half(half int) []int {
	n := len(s.Truth) / 2
	images := make([]int, n)
	for i := range images {
		images[i] = half*n + i
	}
	return images
}

// teach asks about an image and tells the truth.
func (s *suite) teach(ctx context.Context, app string, image int) error {
	answer, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: cifar.Input(image, 0)})
	if err != nil {
		return err
	}
	_, err = s.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{
		Application: app, FeedbackId: answer.FeedbackId,
		Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(s.Truth[image]))},
	})
	return err
}

// test asks a panel about every image, with a threshold below which it gives the default output.
func (s *suite) test(ctx context.Context, p *panel, threshold float64) ([]reply, error) {
	var replies []reply
	for learned, app := range p.apps {
		err := s.UpdateApplication(ctx, &clipperv1.Application{Name: app, ConfidenceThreshold: threshold}, "confidence_threshold")
		if err != nil {
			return nil, err
		}
		tested, err := s.ask(ctx, app, s.half(1-learned))
		if err != nil {
			return nil, err
		}
		replies = append(replies, tested...)
	}
	return replies, nil
}

// ask asks an application about images.
func (s *suite) ask(ctx context.Context, app string, images []int) ([]reply, error) {
	replies := make([]reply, 0, len(images))
	for part := range slices.Chunk(images, batch) {
		request := &clipperv1.QueryBatchRequest{Application: app}
		for _, image := range part {
			request.Queries = append(request.Queries, &clipperv1.BatchQuery{Inputs: cifar.Input(image, 0)})
		}
		response, err := s.queries.QueryBatch(ctx, request)
		if err != nil {
			return nil, err
		}
		for i, result := range response.Results {
			answer := result.GetResponse()
			if answer == nil || answer.IsDefault && answer.DefaultReason != clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE {
				return nil, fmt.Errorf("image %d: %v", part[i], result)
			}
			r := reply{image: part[i], answered: !answer.IsDefault, class: class(answer.Outputs[0])}
			for _, p := range answer.Predictions {
				if p.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
					return nil, fmt.Errorf("image %d: %v", part[i], p)
				}
				r.networks = append(r.networks, class(p.Outputs[0]))
			}
			replies = append(replies, r)
		}
	}
	return replies, nil
}

// class reads a label, or the class of the largest score.
func class(t *clipperv1.Tensor) int64 {
	if t.DataType == clipperv1.DataType_DATA_TYPE_INT64 {
		return int64(binary.LittleEndian.Uint64(t.Data))
	}
	scores := make([]float64, len(t.Data)/8)
	for k := range scores {
		scores[k] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*k:]))
	}
	return int64(recorded.Largest(scores))
}

// scored is how much was answered, and the error of that.
type scored struct {
	share, err float64
	wrong      int
}

func (s *suite) score(replies []reply) scored {
	answered, wrong := 0, 0
	for _, r := range replies {
		if !r.answered {
			continue
		}
		answered++
		if r.class != s.Truth[r.image] {
			wrong++
		}
	}
	return scored{share: float64(answered) / float64(max(len(replies), 1)), err: float64(wrong) / float64(max(answered, 1)), wrong: wrong}
}

// single returns a network's error.
func (s *suite) single(replies []reply, network int) float64 {
	wrong := 0
	for _, r := range replies {
		if r.networks[network] != s.Truth[r.image] {
			wrong++
		}
	}
	return float64(wrong) / float64(len(replies))
}

// paperSingle returns the error of the paper's network of the same rank.
func (s *suite) paperSingle(network int) float64 {
	rank := 0
	for other := range s.Networks {
		if s.Error(other) > s.Error(network) {
			rank++
		}
	}
	return paperSingles[rank]
}

// unanswered returns what others say about the images that were not answered. All have the same order.
func unanswered(replies, others []reply) (rest []reply) {
	for i, r := range replies {
		if !r.answered {
			rest = append(rest, others[i])
		}
	}
	return rest
}
