// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"sync"
	"sync/atomic"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/token"
)

// recentSpacing is the time between two decisions that are remembered of a busy application, when it
// has had as many as there is room for without a rest.
const recentSpacing = 10 * time.Millisecond

// recent are the latest decisions of an application. Safe for concurrent use.
//
// Every decision of a quiet application is remembered. Of one with more than a hundred queries a second
// a hundred a second are, so that to remember costs the others a look at one number.
type recent struct {
	// free is when the time that was used up will have passed, in nanoseconds since 1970: each
	// decision uses recentSpacing, and may do so ahead of time as long as there is room.
	free atomic.Int64
	size int

	mu        sync.Mutex
	decisions []*decision // a ring once it is full
	next      int
	byID      map[token.ID]*decision
}

func newRecent(size int) *recent {
	return &recent{size: size, byID: map[token.ID]*decision{}}
}

// wants reports whether a decision of now is to be remembered; if so, add follows.
func (r *recent) wants(now time.Time) bool {
	at := now.UnixNano()
	most := at + int64(r.size)*int64(recentSpacing)
	for {
		free := r.free.Load()
		after := max(free, at) + int64(recentSpacing)
		if after > most {
			return false
		}
		if r.free.CompareAndSwap(free, after) {
			return true
		}
	}
}

// add remembers a decision in the place of the oldest.
func (r *recent) add(d *decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.decisions) < r.size {
		r.decisions = append(r.decisions, d)
	} else {
		delete(r.byID, r.decisions[r.next].id)
		r.decisions[r.next] = d
	}
	r.next = (r.next + 1) % r.size
	r.byID[d.id] = d
}

// find returns the decision with the id, or nil.
func (r *recent) find(id token.ID) *decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// latest returns at most n decisions that fit, the newest first.
func (r *recent) latest(n int, fits func(*decision) bool) []*decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*decision
	for i := range r.decisions {
		d := r.decisions[(r.next-1-i+2*len(r.decisions))%len(r.decisions)]
		if len(found) < n && fits(d) {
			found = append(found, d)
		}
	}
	return found
}

// recents are those of all applications, by name. Safe for concurrent use.
type recents struct {
	size int
	mu   sync.Mutex
	all  map[string]*recent
}

// of returns those of an application; they outlast its changes.
func (r *recents) of(application string) *recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[application] == nil {
		r.all[application] = newRecent(r.size)
	}
	return r.all[application]
}

// forget drops those of an application that is gone.
func (r *recents) forget(application string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, application)
}

// told attaches what became known about a decision, if it is remembered. The first feedback counts.
func (r *recent) told(id token.ID, feedback func(*decision) *clipperv1.DecisionFeedback) {
	if d := r.find(id); d != nil {
		d.feedback.CompareAndSwap(nil, feedback(d))
	}
}
