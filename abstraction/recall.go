// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// Recall returns what models are remembered to have said about the input with a hash, which is as
// tensor.Input has it, big-endian. There is one entry for each model, in their order; it is empty, without a
// status, when nothing is remembered. Nothing is computed: what other instances remember is asked of
// them, until ctx ends. The error is always nil.
func (s *Service) Recall(ctx context.Context, models []*internalv1.ModelReference, hash [16]byte) ([]*clipperv1.ModelPrediction, error) {
	return s.recall(ctx, models, hash, false), nil
}

// recall asks also other instances, unless one of them asks.
func (s *Service) recall(ctx context.Context, models []*internalv1.ModelReference, hash [16]byte, forwarded bool) []*clipperv1.ModelPrediction {
	sum := xxh3.Uint128{Hi: binary.BigEndian.Uint64(hash[:8]), Lo: binary.BigEndian.Uint64(hash[8:])}
	found := make([]*clipperv1.ModelPrediction, len(models))
	elsewhere := map[*peer][]int{}
	table := s.table.Load()
	for i, ref := range models {
		found[i] = &clipperv1.ModelPrediction{}
		r, err := table.find(ref)
		if err != nil {
			continue
		}
		if r.local != nil {
			if outputs, ok := r.local.serving.Recall(sum); ok {
				found[i] = &clipperv1.ModelPrediction{
					Model: r.name.model, Version: r.name.version, Cached: true,
					Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: outputs,
				}
				continue
			}
		}
		if there, ok := r.pickByHash(sum.Lo); !forwarded && r.away && ok && there != nil {
			elsewhere[there] = append(elsewhere[there], i)
		}
	}
	var asking sync.WaitGroup
	for there, positions := range elsewhere {
		asking.Go(func() {
			m := &internalv1.RecallPredictions{Hash: hash[:], Forwarded: true}
			for _, i := range positions {
				m.Models = append(m.Models, models[i])
			}
			answers, err := there.recall(ctx, m)
			if err != nil {
				s.log.Debug("late predictions cannot be recalled", "instance", there.address, "error", err)
				return
			}
			for j, i := range positions {
				found[i] = answers[j]
			}
		})
	}
	asking.Wait()
	return found
}

func (p *peer) recall(ctx context.Context, m *internalv1.RecallPredictions) ([]*clipperv1.ModelPrediction, error) {
	payload, err := p.calls.Try(ctx, internalv1.Method_METHOD_RECALL, m)
	if err != nil {
		return nil, err
	}
	reply := &internalv1.ModelPredictions{}
	if err := proto.Unmarshal(payload, reply); err != nil {
		return nil, fmt.Errorf("decode predictions: %w", err)
	}
	if len(reply.Predictions) != len(m.Models) {
		return nil, fmt.Errorf("asked about %d models, got %d predictions", len(m.Models), len(reply.Predictions))
	}
	return reply.Predictions, nil
}
