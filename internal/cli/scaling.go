// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// scalingFlags say between which bounds the number of replicas follows the load.
type scalingFlags struct {
	MinReplicas    *uint32        `placeholder:"N" help:"With --max-replicas: the fewest; with 0, a model that nobody asks has none. Default: 0."`
	MaxReplicas    *uint32        `placeholder:"N" help:"Let the number of replicas follow the load, up to this many; 0 turns that off."`
	TargetLoad     float64        `placeholder:"SHARE" help:"Share of what the replicas can answer that the load may be. Default: 0.85."`
	ScaleDownDelay *time.Duration `placeholder:"DURATION" help:"How long fewer replicas must have been enough before some go. Default: twice as long as one takes to start, from 5s to 5m."`
	IdleTimeout    *time.Duration `placeholder:"DURATION" help:"How long nobody must have asked before the last replica goes. Default: 5m."`
}

// apply changes what was given, and reports whether anything was.
func (f *scalingFlags) apply(a *clipperv1.Autoscaling) (given bool) {
	if f.MaxReplicas != nil {
		if *f.MaxReplicas == 0 { // It is turned off.
			proto.Reset(a)
		}
		a.MaxReplicas, given = *f.MaxReplicas, true
	}
	if f.MinReplicas != nil {
		a.MinReplicas, given = *f.MinReplicas, true
	}
	if f.TargetLoad != 0 {
		a.TargetLoad, given = f.TargetLoad, true
	}
	if f.ScaleDownDelay != nil {
		a.ScaleDownDelay, given = durationpb.New(*f.ScaleDownDelay), true
	}
	if f.IdleTimeout != nil {
		a.IdleTimeout, given = durationpb.New(*f.IdleTimeout), true
	}
	return given
}

// scaling writes bounds and settings.
func scaling(a *clipperv1.Autoscaling) string {
	text := fmt.Sprintf("%d to %d replicas, by load, at most %s of what they can answer", a.GetMinReplicas(), a.GetMaxReplicas(), percent(a.GetTargetLoad()))
	if a.GetScaleDownDelay() != nil {
		text += "; fewer after " + duration(a.GetScaleDownDelay().AsDuration())
	}
	if a.GetMinReplicas() == 0 {
		text += "; none after " + duration(a.GetIdleTimeout().AsDuration()) + " without a query"
	}
	return text
}

// addScaling adds why there are so many replicas.
func addScaling(facts *table, s *clipperv1.ScalingStatus) {
	if s == nil {
		return
	}
	count := fmt.Sprintf("%d, %d ready", s.GetReplicas(), s.GetReadyReplicas())
	if s.GetAutoscaling() == nil {
		count += "; set by hand"
	}
	facts.add("replicas", count)
	if s.GetAutoscaling() != nil {
		facts.add("scaling", scaling(s.GetAutoscaling()))
	}
	load := fmt.Sprintf("%.1f rows a second, burstiness %.1f", s.GetArrivalRate(), s.GetBurstiness())
	if s.GetTimeBudget() != nil {
		load += ", " + duration(s.GetTimeBudget().AsDuration().Round(time.Millisecond/10)) + " for each"
	}
	if s.GetLoadRatio() > 0 {
		load += "; with margins, " + percent(s.GetLoadRatio()) + " of what is ready"
	}
	facts.add("load", load)
	if s.GetReplicaRate() > 0 {
		facts.add("one replica", fmt.Sprintf("%.1f rows a second, in batches of %d", s.GetReplicaRate(), s.GetBatchRows()))
	}
	if s.GetStartTime() != nil {
		facts.add("a start", "takes "+duration(s.GetStartTime().AsDuration().Round(10*time.Millisecond)))
	}
	facts.add("why", s.GetWhy())
	if s.GetHeld() != "" {
		facts.add("held", s.GetHeld())
	}
	for _, c := range s.GetChanges() {
		facts.add("scaled", fmt.Sprintf("%s from %d to %d: %s", c.GetTime().AsTime().Format(time.RFC3339), c.GetFrom(), c.GetTo(), c.GetWhy()))
	}
}
