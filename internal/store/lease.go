// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// releaseTimeout bounds the farewell of [HoldLease], so that a shutdown does not
// hang on a store that is gone.
const releaseTimeout = time.Second

// HoldLease keeps a lease alive until ctx ends, then deletes it and returns nil.
// This is how an instance says where it is. It renews three times in each ttl, and
// at every signal on changed, each time with what value returns. It goes on trying
// while the store is unavailable; any other error ends it. A nil changed and a nil
// log are allowed.
func HoldLease(ctx context.Context, docs Documents, key string, value func() []byte, changed <-chan struct{}, ttl time.Duration, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	period := ttl / 3
	ticker := time.NewTicker(max(period, time.Millisecond))
	defer ticker.Stop()
	var held Revision
	failing := false
	for ctx.Err() == nil {
		revision, err := putLease(ctx, docs, key, value(), ttl)
		switch {
		case err == nil:
			if failing {
				log.Info("lease renewed again", "key", key)
			}
			held = revision
		case !errors.Is(err, ErrUnavailable):
			return fmt.Errorf("hold lease %q: %w", key, err)
		case !failing:
			log.Warn("lease cannot be renewed, still trying", "key", key, "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-changed:
		case <-ticker.C:
		}
	}
	if held == 0 {
		return nil
	}
	farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	// If it cannot be deleted, or is another's by now, its time to live sees to it.
	if err := docs.Delete(farewell, key, held); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) {
		log.Warn("lease left to expire", "key", key, "error", err)
	}
	return nil
}

// putLease renews a lease. It does not stop at the end of ctx, but soon after: a lease
// whose revision is not known could not be given back.
func putLease(ctx context.Context, docs Documents, key string, value []byte, ttl time.Duration) (Revision, error) {
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(ttl/3, retryAfter))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(releaseTimeout, cancel) })()
	return docs.PutLease(attempt, key, value, ttl)
}
