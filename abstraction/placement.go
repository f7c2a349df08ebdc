// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"slices"
	"time"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/homes"
	"github.com/clipper-serving/clipper/abstraction/registry"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/instances"
)

// Where a version runs follows from the documents and the leases alone, so every instance comes to
// the same result without asking another one.
//
// A version moves without a gap: the instance that was its home goes on as a stand-in until every
// replica at the new home is ready, and queries are led to it meanwhile. A home that cannot run the
// version never takes it over.

// share is the part of a version's replicas that is at one instance: of the replicas in a row, those
// that are started here and then those that have registered, every one whose position leaves the
// remainder index when divided by of.
type share struct {
	index, of  int
	launched   int                // the number of replicas that do not register
	registered []registry.Replica // all that have registered for the version, sorted by id
	// keep is true while other homes still start what is theirs: until then, nothing is given up.
	keep bool
	// stale is true when registered replicas are to be looked at again.
	stale bool
}

func (s share) equal(o share) bool {
	return s.index == o.index && s.of == o.of && s.launched == o.launched && s.keep == o.keep && s.stale == o.stale && slices.Equal(s.registered, o.registered)
}

// has reports whether the replica with this number is in the share.
func (s share) has(number int) bool { return number%s.of == s.index }

// count returns how many of the first n replicas are in the share.
func (s share) count(n int) int { return (n - s.index + s.of - 1) / s.of }

// launchedReplicas is how many replicas a version wants that do not register by themselves.
func launchedReplicas(spec *clipperv1.ModelVersion) int {
	if spec.Container.GetRegistered() != nil {
		return 0
	}
	return int(spec.GetReplicas())
}

// outlook is what the placement of versions follows from beside their documents.
type outlook struct {
	self       string               // empty for the only instance
	members    []instances.Instance // sorted by address
	staying    []string             // the addresses of those that are not about to stop; all if all are
	registered map[registry.Name][]registry.Replica
}

// look returns the outlook now; it is nil when this instance does not know yet whether it is alone.
func (s *Service) look() *outlook {
	o := &outlook{registered: s.registry.View().Replicas}
	if s.group == nil {
		return o
	}
	o.self = s.group.Address()
	o.members = s.group.Members().Instances
	if len(o.members) == 0 {
		return nil
	}
	var all []string
	for _, m := range o.members {
		all = append(all, m.Address)
		if !m.Leaving {
			o.staying = append(o.staying, m.Address)
		}
	}
	if len(o.staying) == 0 {
		o.staying = all
	}
	return o
}

// level returns how far the version is here.
func (v *version) level() instances.Level {
	v.mu.Lock()
	defer v.mu.Unlock()
	wanted := v.share.count(v.share.launched + len(v.share.registered))
	ready, complete := 0, 0
	for _, r := range v.replicas {
		if s := r.status(); !s.leaving && s.State == clipperv1.ReplicaState_REPLICA_STATE_READY {
			ready++
			if v.share.has(r.number) {
				complete++
			}
		}
	}
	for _, s := range v.enrolledStatus() {
		if !s.leaving && s.State == clipperv1.ReplicaState_REPLICA_STATE_READY {
			ready++
			complete++
		}
	}
	switch {
	case complete >= wanted:
		return instances.Complete
	case ready > 0:
		return instances.Serving
	}
	return instances.Running
}

// standIn makes the version go on as it does, for as long as its homes are not ready. Only registered
// replicas whose lease has ended go.
func (v *version) standIn(spec *clipperv1.ModelVersion, p placement) {
	v.mu.Lock()
	here := v.share
	v.mu.Unlock()
	here.keep, here.stale, here.registered = true, false, p.registered
	v.update(spec, here)
}

// placement is where a version runs, as this instance sees it.
type placement struct {
	homes   []string // best first; nil for the only instance
	weights []int    // of the homes: how many replicas each has

	registered []registry.Replica // all that have registered, sorted by id
	here       *share             // nil when this instance is no home
	complete   bool               // every replica is ready at its home
	serving    []string           // the homes that have a replica that is ready
	ready      []string           // the homes whose replicas are all ready
	standIns   []string           // the others that have a replica that is ready
}

// place returns the placement of a version. own is how far the version is here.
func (o *outlook) place(doc *catalog.Version, own instances.Level) placement {
	spec := doc.Spec
	registered := o.registered[registry.Name{Model: spec.Model, Version: spec.Version}]
	if spec.GetReplicas() == 0 {
		registered = nil
	}
	launched := launchedReplicas(spec)
	if o.self == "" {
		return placement{here: &share{of: 1, launched: launched, registered: registered}, complete: true}
	}
	all := launched + len(registered)
	p := placement{registered: registered}
	// By model: its versions share a home, where a new one finds what the current one was asked lately,
	// and a switch of the current version changes the way of no query.
	p.homes = homes.Choose(spec.Model, o.staying, min(max(int(spec.Homes), 1), max(all, 1)))
	for i, home := range p.homes {
		sh := share{index: i, of: len(p.homes), launched: launched, registered: registered}
		p.weights = append(p.weights, max(sh.count(all), 1))
		if home == o.self {
			p.here = &sh
		}
	}
	for _, m := range o.members {
		level := m.Versions[doc.UID]
		if m.Address == o.self {
			level = own
		}
		home := slices.Contains(p.homes, m.Address)
		if home && level >= instances.Complete {
			p.ready = append(p.ready, m.Address)
		}
		switch {
		case level < instances.Serving:
		case home:
			p.serving = append(p.serving, m.Address)
		default:
			p.standIns = append(p.standIns, m.Address)
		}
	}
	p.complete = len(p.ready) == len(p.homes)
	if p.here != nil {
		p.here.keep = !p.complete
	}
	return p
}

// candidates returns the instances that queries for the version go to: the homes that can serve, and
// while some cannot in full, those that stand in for them.
func (p placement) candidates() []string {
	switch {
	case !p.complete && len(p.standIns) > 0:
		return slices.Concat(p.ready, p.standIns)
	case len(p.serving) > 0:
		return p.serving
	}
	return p.homes
}

// weight returns the weight of a candidate.
func (p placement) weight(address string) int {
	if i := slices.Index(p.homes, address); i >= 0 {
		return p.weights[i]
	}
	return slices.Max(p.weights)
}

// first reports whether this instance decides what only one may.
func (o *outlook) first(p placement) bool { return o.self == "" || p.homes[0] == o.self }

// elsewhere reports whether another instance says that the version runs there.
func (o *outlook) elsewhere(uid string) bool {
	return slices.ContainsFunc(o.members, func(m instances.Instance) bool {
		return m.Address != o.self && m.Versions[uid] > instances.Absent
	})
}

// leaveDelay is how long a version that has been handed over is still served, since the instances do
// not learn of it at the same moment.
const leaveDelay = time.Second

// handOver ends a version that is at home elsewhere, once its homes serve it in full. It goes on for
// a little while after that, for instances that do not know yet.
func (s *Service) handOver(v *version, doc *catalog.Version, p placement) *version {
	switch {
	case !p.complete:
		v.leavesAt = time.Time{}
		v.standIn(doc.Spec, p)
	case v.leavesAt.IsZero():
		s.log.Info("version moves", "model", v.name.model, "version", v.name.version, "homes", p.homes)
		v.leavesAt = time.Now().Add(leaveDelay)
		time.AfterFunc(leaveDelay, s.wake)
	case !time.Now().Before(v.leavesAt):
		s.retire(v)
		return nil
	}
	return v
}

// level returns how far a version is here, as far as others may count on it.
func (s *Service) level(n name, uid string) instances.Level {
	v := s.running[n]
	switch {
	case v != nil && v.uid == uid && v.leavesAt.IsZero():
		return v.level()
	case v != nil && v.uid == uid, s.closing[n] != nil && s.closing[n].uid == uid:
		return instances.Running
	}
	return instances.Absent
}

// announce tells the other instances what runs here.
func (s *Service) announce() {
	if s.group == nil {
		return
	}
	levels := make(map[string]instances.Level, len(s.running)+len(s.closing))
	for _, versions := range []map[name]*version{s.closing, s.running} {
		for n, v := range versions {
			levels[v.uid] = s.level(n, v.uid)
		}
	}
	s.group.Announce(levels)
}
