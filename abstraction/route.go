// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"github.com/clipper-serving/clipper/abstraction/homes"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// route says where queries for a version go. It never changes.
type route struct {
	name    name
	local   *version          // what runs here, also to be asked by other instances; or nil
	refusal *prediction.Error // why the version cannot be run here although it should be
	away    bool              // whether queries may have to go to other instances
	peers   []*peer           // those to choose from; nil is this instance
	weights []homes.Weighted  // of the peers
}

// route returns the route for a version that has v here, or nil when there is none. It holds s.mu.
func (s *Service) route(n name, v *version, o *outlook, p placement) *route {
	r := &route{name: n, local: v}
	if o.self == "" {
		if v == nil {
			return nil
		}
		return r
	}
	if err := s.unusable[n]; err != nil {
		r.refusal = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, "model %s:%s cannot be run at its home: %v", n.model, n.version, err)
	}
	for _, address := range p.candidates() {
		var there *peer
		if address == o.self {
			if v == nil && r.refusal == nil {
				continue
			}
		} else if there = s.peers[address]; there == nil {
			continue
		}
		r.peers = append(r.peers, there)
		r.weights = append(r.weights, homes.Weighted{ID: homes.ID(address), Weight: float64(p.weight(address))})
	}
	r.away = len(r.peers) != 1 || r.peers[0] != nil
	return r
}

// pick returns the instance for an input, nil for this one; ok is false when none is known that can
// be reached.
func (r *route) pick(in *tensor.Input) (p *peer, ok bool) {
	if len(r.peers) < 2 {
		return r.pickByHash(0)
	}
	return r.pickByHash(in.Hash().Lo)
}

// pickByHash is pick with the low half of the input's hash, which is of no meaning when there is no
// choice.
func (r *route) pickByHash(hash uint64) (p *peer, ok bool) {
	switch len(r.peers) {
	case 0:
		return nil, false
	case 1:
		return r.peers[0], r.peers[0].reachable()
	}
	p = r.peers[homes.Pick(hash, r.weights)]
	if p.reachable() {
		return p, true
	}
	var peers []*peer
	var weights []homes.Weighted
	for i, p := range r.peers {
		if p.reachable() {
			peers, weights = append(peers, p), append(weights, r.weights[i])
		}
	}
	if len(peers) == 0 {
		return nil, false
	}
	return peers[homes.Pick(hash, weights)], true
}

// reachable reports whether there is a link, as there always is to this instance.
func (p *peer) reachable() bool { return p == nil || p.calls.Connected() }
