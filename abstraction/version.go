// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/serving"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// version is a model version that runs here. Safe for concurrent use.
type version struct {
	name     name
	uid      string
	serving  *serving.Version
	launcher launcher.Launcher // nil when the containers are somebody else's
	backoff  backoff
	service  *Service
	log      *slog.Logger
	memory
	scaling scaling

	// leavesAt is when it ends, after it has been handed over to other instances; zero while it has
	// not. Guarded by Service.mu.
	leavesAt time.Time

	mu       sync.Mutex
	closed   bool
	spec     *clipperv1.ModelVersion // as last applied
	share    share                   // the part of the replicas that is here
	replicas []*replica              // sorted by id; those that are leaving included
	enrolled map[string]*enrolled    // replicas that have registered, by id; those that are leaving included
	leaving  sync.WaitGroup
}

// newVersion runs a version.
func (s *Service) newVersion(n name, doc *catalog.Version, here share) (*version, error) {
	v := &version{
		name:     n,
		uid:      doc.UID,
		backoff:  s.backoff,
		service:  s,
		log:      s.log.With("model", n.model, "version", n.version),
		spec:     doc.Spec,
		share:    here,
		enrolled: map[string]*enrolled{},
	}
	var err error
	if isLaunched(doc.Spec.Container) {
		if v.launcher, err = s.launcherFor(doc.Spec.Container); err != nil {
			return nil, err
		}
	}
	v.serving, err = serving.New(serving.Config{
		Model:        n.model,
		Version:      n.version,
		Signature:    doc.Spec.Signature,
		Batching:     doc.Spec.Batching,
		Cache:        doc.Spec.Cache,
		WarmUp:       doc.Spec.WarmUp,
		Recent:       func() [][]*clipperv1.Tensor { return s.recentInputs(n.model) },
		StartTimeout: doc.Spec.Container.StartTimeout.AsDuration(),
		OnChange:     v.notify,
		OnDemand:     s.demand,
	}, s.serving)
	if err != nil {
		return nil, fmt.Errorf("serve version: %w", err)
	}
	v.mu.Lock()
	v.scale()
	v.mu.Unlock()
	v.enroll()
	return v, nil
}

// isLaunched reports whether somebody here starts the replicas.
func isLaunched(c *clipperv1.Container) bool {
	return c.GetAddress() == nil && c.GetRegistered() == nil
}

// update makes the version run as the document says now, with the given part of the replicas.
func (v *version) update(spec *clipperv1.ModelVersion, here share) {
	if v.change(spec, here) {
		v.enroll()
	}
}

// change is update but for registered replicas. It reports whether there was something to do.
func (v *version) change(spec *clipperv1.ModelVersion, here share) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.spec
	if v.closed || before == spec && v.share.equal(here) {
		return false
	}
	v.spec, v.share = spec, here
	if !proto.Equal(before.Batching, spec.Batching) || !proto.Equal(before.Cache, spec.Cache) {
		if err := v.serving.Update(spec.Batching, spec.Cache); err != nil {
			v.log.Error("version runs on as before", "error", err)
		}
	}
	v.scale()
	return true
}

// scale starts replicas that are missing and lets those go that are too many. It holds
// v.mu.
func (v *version) scale() {
	var staying, foreign []*replica
	for _, r := range v.replicas {
		switch {
		case r.isLeaving():
		case v.share.has(r.number):
			staying = append(staying, r)
		default:
			foreign = append(foreign, r)
		}
	}
	wanted := v.share.count(launchedReplicas(v.spec))
	if asleep := isAutoscaled(v.spec) && v.spec.GetReplicas() == 0; asleep {
		v.serving.Hold(true)
	} else {
		defer v.serving.Hold(false) // Not before a replica is expected.
	}
	for len(staying) < wanted {
		r := v.startReplica(v.freeID())
		staying = append(staying, r)
		v.replicas = append(v.replicas, r)
		slices.SortFunc(v.replicas, func(a, b *replica) int { return a.number - b.number })
	}
	unwanted := staying[wanted:]
	if !v.share.keep {
		unwanted = append(unwanted, foreign...)
	}
	for _, r := range unwanted {
		r.leave()
		v.leaving.Go(func() {
			ctx, cancel := context.WithTimeout(v.service.patience, v.service.cfg.DrainTimeout)
			defer cancel()
			r.stop(ctx)
			v.mu.Lock()
			v.replicas = slices.DeleteFunc(v.replicas, func(o *replica) bool { return o == r })
			v.mu.Unlock()
			v.notify()
		})
	}
}

// freeID returns the least number of this instance's share that no replica has.
func (v *version) freeID() int {
	for n := v.share.index; ; n += v.share.of {
		if !slices.ContainsFunc(v.replicas, func(r *replica) bool { return r.number == n }) {
			return n
		}
	}
}

// notify tells replicas and the service that a state may have changed. It does not block.
func (v *version) notify() {
	v.mu.Lock()
	for _, r := range v.replicas {
		r.wake()
	}
	v.mu.Unlock()
	v.service.wake()
}

// close answers what the version has and stops the replicas: in good order until ctx ends,
// and at once from then on.
func (v *version) close(ctx context.Context) {
	v.mu.Lock()
	v.closed = true
	replicas := slices.Clone(v.replicas)
	for _, r := range replicas {
		r.leave()
	}
	for _, e := range v.enrolled {
		e.leaving = true
	}
	v.mu.Unlock()

	v.serving.Close(ctx)
	v.save(v.service.patience)
	var stopping sync.WaitGroup
	for _, r := range replicas {
		stopping.Go(func() { r.stop(ctx) })
	}
	stopping.Wait()
	v.leaving.Wait()
}

// ready reports whether a replica can serve.
func (v *version) ready() bool {
	return slices.ContainsFunc(v.status(), func(r replicaStatus) bool {
		return r.State == clipperv1.ReplicaState_REPLICA_STATE_READY
	})
}

// status returns what each replica is doing.
func (v *version) status() []replicaStatus {
	v.mu.Lock()
	replicas := slices.Clone(v.replicas)
	registered := v.enrolledStatus()
	v.mu.Unlock()
	statuses := make([]replicaStatus, len(replicas), len(replicas)+len(registered))
	for i, r := range replicas {
		statuses[i] = r.status()
	}
	return append(statuses, registered...)
}

// summarize says what a version is doing, given what its replicas do.
func summarize(wanted int, statuses []replicaStatus, c *clipperv1.Container) (clipperv1.ModelState, string, []*clipperv1.Replica) {
	var ready, failed int
	var cause string
	replicas := make([]*clipperv1.Replica, len(statuses))
	for i, r := range statuses {
		replicas[i] = r.Replica
		switch {
		case r.leaving:
		case r.State == clipperv1.ReplicaState_REPLICA_STATE_READY:
			ready++
		case r.failing || r.State == clipperv1.ReplicaState_REPLICA_STATE_FAILED:
			failed++
			if cause == "" {
				cause = "replica " + r.Id + ": " + r.Message
			}
		case (c.GetAddress() != nil || r.Registered) && r.Message != "" && cause == "":
			// Nobody here starts it, so that it cannot be reached yet is worth knowing.
			cause = "replica " + r.Id + ": " + r.Message
		}
	}
	count := strconv.Itoa(ready) + " of " + strconv.Itoa(wanted) + " replicas ready"
	switch {
	case wanted == 0:
		return clipperv1.ModelState_MODEL_STATE_STOPPED, "no replica is wanted: scale the version up to use it", replicas
	case ready >= wanted:
		return clipperv1.ModelState_MODEL_STATE_READY, count, replicas
	case ready > 0:
		return clipperv1.ModelState_MODEL_STATE_DEGRADED, sentence(count, cause), replicas
	case c.GetRegistered() != nil && len(replicas) == 0:
		return clipperv1.ModelState_MODEL_STATE_STARTING, count + "; none has registered", replicas
	case failed >= wanted:
		return clipperv1.ModelState_MODEL_STATE_FAILED, sentence(count, cause), replicas
	}
	return clipperv1.ModelState_MODEL_STATE_STARTING,
		sentence(count+"; one may take "+c.GetStartTimeout().AsDuration().String()+" to start", cause), replicas
}

func sentence(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}
