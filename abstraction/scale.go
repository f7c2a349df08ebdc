// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/catalog"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/instances"
)

// The number of replicas is decided at the version's home, the first of several, and written into the
// version's document. So every instance, and the next one after a restart, starts and stops what it is
// to, by whichever launcher; and a version that moves keeps its replicas.

const (
	// scaleInterval is the time between two decisions.
	scaleInterval = 500 * time.Millisecond
	// scaleTimeout bounds what one decision waits for the store and for other instances.
	scaleTimeout = 2 * time.Second
	// rememberedChanges is the number of changes that are kept.
	rememberedChanges = 20
	// startWeight is how much the last start counts in the mean time that a replica takes to start.
	startWeight = 0.25
	// causeBytes bounds the part of a replica's message that is repeated in an explanation.
	causeBytes = 300
)

// scaling is what a version knows of the number of its replicas.
type scaling struct {
	// Used by one goroutine at a time, that of autoscale:
	scaler autoscale.Scaler
	failed bool // the last change could not be written

	mu     sync.Mutex
	status *clipperv1.ScalingStatus // nil until the first decision
	// How long replicas take to start here: about, and at best; 0 when none has.
	start, quickest time.Duration
}

// started notes how long a replica took to become ready.
func (s *scaling) started(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start == 0 {
		s.start, s.quickest = took, took
		return
	}
	s.start += time.Duration(startWeight * float64(took-s.start))
	s.quickest = min(s.quickest, took)
}

// earliest returns when a replica that is started now can serve at best; the zero time is unknown.
func (s *scaling) earliest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quickest == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.quickest)
}

// now returns how many replicas the version needs, nil when that is decided elsewhere or was not yet, and
// how long one takes to start.
func (s *scaling) now() (*clipperv1.ScalingStatus, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.start
}

func (s *scaling) set(status *clipperv1.ScalingStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// autoscale decides again and again how many replicas there are to be, until ctx ends.
func (s *Service) autoscale(ctx context.Context) {
	ticker := time.NewTicker(scaleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.demanded:
		}
		s.scaleAll(ctx)
	}
}

// demand makes autoscale look at once. It does not block.
func (s *Service) demand() {
	select {
	case s.demanded <- struct{}{}:
	default:
	}
}

// scaleAll decides about every version that has its first home here.
func (s *Service) scaleAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	var scaling sync.WaitGroup
	for _, m := range s.catalog.View().Models {
		for _, doc := range m.Versions {
			v, first := s.scaledHere(doc)
			switch {
			case v == nil:
			case !first || doc.Deleting:
				v.forgetScaling()
			default:
				scaling.Go(func() { s.scale(ctx, v, doc, m.Pending() == doc.Spec.Version) })
			}
		}
	}
	scaling.Wait()
}

// scaledHere returns the version if it runs here, and whether its number of replicas is decided here.
func (s *Service) scaledHere(doc *catalog.Version) (v *version, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, o := s.running[name{doc.Spec.Model, doc.Spec.Version}], s.look()
	if v == nil || v.uid != doc.UID || o == nil {
		return nil, false
	}
	return v, o.first(o.place(doc, instances.Absent))
}

// scale decides about a version, writes the decision down and says it.
func (s *Service) scale(ctx context.Context, v *version, doc *catalog.Version, pending bool) {
	here := s.inquire(ctx, []*catalog.Version{doc}, false).of(doc.UID)
	if len(here.silent) > 0 {
		return // What part of the load comes is not known; the next look may tell.
	}
	before, start := v.scaling.now()
	o := here.observe(doc.Spec)
	o.Plan = v.serving.Plan(o.Demand.Budget())
	o.Start = start
	o.Keep = pending && o.Ready == 0
	settings := scaleSettings(doc.Spec.Autoscaling)
	d := v.scaling.scaler.Decide(settings, o)
	status := scalingStatus(doc.Spec.Autoscaling, settings, o, d)
	status.Changes = before.GetChanges()
	if d.Replicas != o.Replicas {
		if err := s.writeReplicas(ctx, doc, d.Replicas); err != nil {
			if !v.scaling.failed && ctx.Err() == nil {
				v.log.Warn("the number of replicas cannot be changed, still trying", "from", o.Replicas, "to", d.Replicas, "error", err)
			}
			v.scaling.failed = true
			status.Replicas, status.Held = uint32(o.Replicas), sentence("the change cannot be stored now", d.Held) //nolint:gosec // Bounded.
		} else {
			v.log.Info("replicas scaled", "from", o.Replicas, "to", d.Replicas, "why", d.Why, "held", d.Held)
			v.scaling.failed = false
			change := &clipperv1.ScalingChange{Time: timestamppb.Now(), From: uint32(o.Replicas), To: uint32(d.Replicas), Why: d.Why} //nolint:gosec // Bounded.
			status.Changes = append([]*clipperv1.ScalingChange{change}, status.Changes[:min(len(status.Changes), rememberedChanges-1)]...)
		}
	}
	if o.Failing != "" && d.Needed > d.Replicas && before.GetHeld() != d.Held {
		v.log.Warn("replicas are not scaled up", "held", d.Held)
	}
	v.scaling.set(status)
	desired := d.Replicas
	if settings.Max == 0 {
		desired = d.Needed
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		s.serving.Metrics.SetScaling(v.name.model, v.name.version, d.Load.Rate, d.Ratio, desired)
	}
}

// forgetScaling is for versions whose number of replicas is decided elsewhere now.
func (v *version) forgetScaling() {
	if before, _ := v.scaling.now(); before != nil {
		v.scaling.set(nil)
		v.scaling.scaler = autoscale.Scaler{}
		v.service.serving.Metrics.DeleteScaling(v.name.model, v.name.version)
	}
}

// writeReplicas changes the number of replicas, unless somebody else has changed it or the bounds
// meanwhile: then the next decision is made with theirs.
func (s *Service) writeReplicas(ctx context.Context, doc *catalog.Version, replicas int) error {
	err := s.catalog.Update(ctx, doc.Spec.Model, doc.Spec.Version, "", func(v *clipperv1.ModelVersion) {
		if v.GetReplicas() == doc.Spec.GetReplicas() && proto.Equal(v.Autoscaling, doc.Spec.Autoscaling) {
			v.Replicas = proto.Uint32(uint32(replicas)) //nolint:gosec // Bounded.
		}
	})
	if err == nil {
		_, err = s.refresh(ctx)
	}
	return err
}

// observe returns what a decision about the version follows from, but for what was learned.
func (r *report) observe(spec *clipperv1.ModelVersion) autoscale.Observed {
	o := autoscale.Observed{Now: time.Now(), Demand: r.demand, Replicas: int(spec.GetReplicas())}
	failing := 0
	for _, replica := range r.replicas {
		switch registers := spec.Container.GetRegistered() != nil; {
		case replica.leaving || replica.Registered && !registers: // They come on top of those that are scaled.
		case replica.State == clipperv1.ReplicaState_REPLICA_STATE_READY:
			o.Ready++
		case replica.failing || replica.State == clipperv1.ReplicaState_REPLICA_STATE_FAILED:
			if failing++; failing == 1 {
				o.Failing = cause(replica.Replica)
			}
		}
	}
	o.Starting = max(o.Replicas-o.Ready-failing, 0)
	return o
}

// cause returns what a replica says is wrong with it, without the last lines of its log.
func cause(r *clipperv1.Replica) string {
	message, _, _ := strings.Cut(r.GetMessage(), "\n")
	message = strings.TrimSuffix(message, " The last lines of its log:")
	if len(message) > causeBytes {
		message = strings.ToValidUTF8(message[:causeBytes], "") + "..."
	}
	return "replica " + r.GetId() + ": " + message
}

// isAutoscaled reports whether Clipper chooses the number of replicas.
func isAutoscaled(spec *clipperv1.ModelVersion) bool {
	return spec.GetAutoscaling().GetMaxReplicas() > 0
}

func scaleSettings(a *clipperv1.Autoscaling) autoscale.Settings {
	return autoscale.Settings{
		Min: int(a.GetMinReplicas()), Max: int(a.GetMaxReplicas()), TargetLoad: a.GetTargetLoad(),
		DownDelay: a.GetScaleDownDelay().AsDuration(), IdleTimeout: a.GetIdleTimeout().AsDuration(),
	}
}

// scalingStatus says it to people.
func scalingStatus(a *clipperv1.Autoscaling, settings autoscale.Settings, o autoscale.Observed, d autoscale.Decision) *clipperv1.ScalingStatus {
	//nolint:gosec // All numbers are bounded.
	status := &clipperv1.ScalingStatus{
		Replicas: uint32(d.Replicas), NeededReplicas: uint32(d.Needed), ReadyReplicas: uint32(o.Ready),
		ArrivalRate: d.Load.Rate, Burstiness: d.Load.Burstiness,
		BatchRows: uint32(d.Batch.Rows), ReplicaRate: d.Batch.Rate(), LoadRatio: d.Ratio,
		Why: d.Why, Held: d.Held,
	}
	if settings.Max > 0 {
		status.Autoscaling = proto.CloneOf(a)
		if a.ScaleDownDelay == nil {
			status.Autoscaling.ScaleDownDelay = durationpb.New(settings.Delay(o.Start))
		}
	}
	if budget := o.Demand.Budget(); budget > 0 {
		status.TimeBudget = durationpb.New(budget)
	}
	if o.Start > 0 {
		status.StartTime = durationpb.New(o.Start)
	}
	return status
}

// demandReport is what comes to the version here, for the instance that decides.
func demandReport(d autoscale.Demand) *internalv1.Demand {
	r := &internalv1.Demand{
		Rate: d.Rate, Burstiness: d.Burstiness, Urgency: d.Urgency, Waiting: uint32(d.Waiting), //nolint:gosec // Bounded.
	}
	if d.Idle >= 0 {
		r.IdleMillis = proto.Uint64(uint64(d.Idle.Milliseconds())) //nolint:gosec // Not negative.
	}
	return r
}

func reportedDemand(r *internalv1.Demand) autoscale.Demand {
	d := autoscale.Demand{
		Rate: r.GetRate(), Burstiness: r.GetBurstiness(), Urgency: r.GetUrgency(),
		Waiting: int(r.GetWaiting()), Idle: -1,
	}
	if r != nil && r.IdleMillis != nil {
		d.Idle = time.Duration(min(*r.IdleMillis, 1<<40)) * time.Millisecond //nolint:gosec // Bounded.
	}
	return d
}

// checkScaling refuses a number of replicas that does not fit the bounds of a version that is autoscaled,
// and bounds for a version whose replicas nobody here starts.
func (s *Service) checkScaling(ctx context.Context, req *clipperv1.UpdateModelVersionRequest) error {
	if req.Replicas == nil && req.Autoscaling == nil {
		return nil
	}
	m, err := s.read(ctx, req.Model)
	if err != nil {
		return err
	}
	doc := m.Version(req.Version)
	if doc == nil || doc.Deleting {
		return nil // The update itself says so.
	}
	if req.Autoscaling == nil {
		return catalog.CheckWithin("replicas", req.Replicas, doc.Spec.Autoscaling)
	}
	if err := catalog.CheckWithin("replicas", req.Replicas, req.Autoscaling); err != nil {
		return err
	}
	return catalog.CheckScalable("autoscaling", req.Autoscaling, doc.Spec.Container)
}
