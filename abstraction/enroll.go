// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"cmp"
	"context"
	"slices"

	"github.com/clipper-serving/clipper/abstraction/registry"
	connection "github.com/clipper-serving/clipper/abstraction/replica"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// enrolled is a replica that has registered and is connected here. Guarded by version.mu.
type enrolled struct {
	address    string
	connection *connection.Replica
	leaving    bool
}

// enroll connects the registered replicas of the version's share that are not connected yet, and lets
// those go that are not in it any more. It is called by one goroutine at a time.
func (v *version) enroll() {
	v.mu.Lock()
	staying := map[string]bool{}
	var joining []registry.Replica
	for i, r := range v.share.registered {
		here := v.share.has(v.share.launched + i)
		staying[r.ID] = here || v.share.keep
		e := v.enrolled[r.ID]
		if here && !v.closed && (e == nil || !e.leaving && e.address != r.Address) {
			joining = append(joining, r)
		}
	}
	var parting []string
	for id, e := range v.enrolled {
		if !staying[id] && !e.leaving {
			e.leaving = true
			parting = append(parting, id)
		}
	}
	v.mu.Unlock()

	for _, r := range joining {
		// It calls back, so the lock must be free.
		c := v.serving.Connect(r.ID, r.Address)
		v.mu.Lock()
		v.enrolled[r.ID] = &enrolled{address: r.Address, connection: c}
		v.mu.Unlock()
	}
	for _, id := range parting {
		v.leaving.Go(func() {
			ctx, cancel := context.WithTimeout(v.service.patience, v.service.cfg.DrainTimeout)
			defer cancel()
			v.serving.Disconnect(ctx, id)
			v.mu.Lock()
			delete(v.enrolled, id)
			v.share.stale = true // It may have registered again meanwhile.
			v.mu.Unlock()
			v.notify()
		})
	}
}

// enrolledStatus returns what each registered replica is doing, sorted by id. It holds v.mu.
func (v *version) enrolledStatus() []replicaStatus {
	statuses := make([]replicaStatus, 0, len(v.enrolled))
	for _, e := range v.enrolled {
		s := replicaStatus{Replica: e.connection.Status(), leaving: e.leaving}
		s.Registered = true
		if e.leaving {
			s.State = clipperv1.ReplicaState_REPLICA_STATE_DRAINING
		}
		statuses = append(statuses, s)
	}
	slices.SortFunc(statuses, func(a, b replicaStatus) int { return cmp.Compare(a.Id, b.Id) })
	return statuses
}
