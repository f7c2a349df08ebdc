// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/abstraction/batching"
)

const (
	// saveInterval is the time between two savings of what was learned of the replicas.
	saveInterval = time.Minute
	// learnedTimeout bounds reading and saving it.
	learnedTimeout = 2 * time.Second
)

// recall lets the replicas begin with what was learned earlier about this version. It is called
// before the first one is connected, and waits for the store only so long that a store that is away
// keeps no model from serving.
func (v *version) recall() {
	v.recalled.Do(func() {
		ctx, cancel := context.WithTimeout(v.service.patience, learnedTimeout)
		defer cancel()
		l, err := v.service.catalog.Learned(ctx, v.name.model, v.name.version, v.uid)
		if err != nil {
			v.log.Warn("latencies have to be learned again", "error", err)
			return
		}
		v.serving.SetPrior(l)
	})
}

// save keeps what was learned, if there is anything new.
func (v *version) save(ctx context.Context) {
	v.saving.Lock()
	defer v.saving.Unlock()
	l := v.serving.Learned()
	if l.Observations == 0 || l == v.saved {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnedTimeout)
	defer cancel()
	if err := v.service.catalog.SaveLearned(ctx, v.name.model, v.name.version, v.uid, l); err != nil {
		v.log.Warn("learned latencies are not saved yet", "error", err)
		return
	}
	v.saved = l
}

// saveLearned saves what was learned of every version at intervals, until ctx ends.
func (s *Service) saveLearned(ctx context.Context) {
	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		versions := make([]*version, 0, len(s.running))
		for _, v := range s.running {
			versions = append(versions, v)
		}
		s.mu.Unlock()
		for _, v := range versions {
			v.save(ctx)
		}
	}
}

// memory is what a version knows of what it has saved.
type memory struct {
	recalled sync.Once
	saving   sync.Mutex
	saved    batching.Learned // under saving
}
