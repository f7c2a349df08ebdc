// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

// secretiveSums makes every addition and says that it is not available while it is to. It remembers identities
// as a store does.
type secretiveSums struct {
	store.Sums
	secretive bool
	made      float64
	until     map[string]time.Time
}

func (s *secretiveSums) Add(_ context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	known := time.Now().Before(s.until[once])
	if !known {
		s.until[once] = time.Now().Add(ttl)
		s.made += updates[0].Deltas["n"]
	}
	if s.secretive {
		return false, store.ErrUnavailable
	}
	return !known, nil
}

// TestAddition: however often and for however long it is tried, it counts once.
func TestAddition(t *testing.T) {
	for _, test := range []struct {
		name   string
		outage time.Duration
		want   error
	}{
		{"no outage", 0, nil},
		{"the store remembers", additionMemory - time.Second, nil},
		{"the store has forgotten", additionMemory, errForgotten},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sums := &secretiveSums{secretive: true, until: map[string]time.Time{}}
				a := newAddition("key", map[string]float64{"n": 1})
				for range test.outage / time.Second {
					require.ErrorIs(t, a.add(t.Context(), sums), store.ErrUnavailable)
					time.Sleep(time.Second)
				}
				sums.secretive = false
				require.ErrorIs(t, a.add(t.Context(), sums), test.want)
				require.Equal(t, 1.0, sums.made)
			})
		})
	}
}
