// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

// crashWriters is how many callers write when the store is killed, so that it is
// killed in the middle of a shared batch.
const crashWriters = 16

// WriteUntil writes sums and documents from many callers until ctx ends or the
// store fails, and reports each identity after it was acknowledged. acknowledge is
// called by many goroutines. Run names the writes, so that two runs differ.
func WriteUntil(ctx context.Context, s store.Store, run string, acknowledge func(identity string)) {
	var writers sync.WaitGroup
	for w := range crashWriters {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				identity := fmt.Sprintf("%s/%d/%d", run, w, i)
				if err := write(ctx, s, identity); err != nil {
					return
				}
				acknowledge(identity)
			}
		})
	}
	writers.Wait()
}

func write(ctx context.Context, s store.Store, identity string) error {
	if _, err := s.Sums().Add(ctx, identity, time.Hour, crashUpdates(identity)...); err != nil {
		return err
	}
	// Documents are rarer.
	if !strings.HasSuffix(identity, "0") {
		return nil
	}
	_, err := s.Documents().Put(ctx, "crash/"+identity, []byte(identity), 0)
	return err
}

func crashUpdates(identity string) []store.Update {
	return []store.Update{
		plus("crash", map[string]float64{"n": 1}),
		lasting("crash/"+identity, time.Hour, map[string]float64{"n": 1}),
	}
}

// CheckSurvivors checks a store that was killed while [WriteUntil] wrote to it:
// all that was acknowledged is there, no add was done by half, and adding
// everything again changes nothing.
func CheckSurvivors(t *testing.T, s store.Store, acknowledged []string) {
	t.Helper()
	require.NotEmpty(t, acknowledged, "nothing was written before the kill, so nothing is tested")
	ctx := patient(t)
	present := map[string]bool{}
	after := ""
	for {
		page, err := s.Sums().Keys(ctx, "crash/", after, 1000)
		require.NoError(t, err)
		for _, key := range page {
			got, err := s.Sums().Group(ctx, key)
			require.NoError(t, err)
			require.Equal(t, map[string]float64{"n": 1}, got.Sums, key)
			require.Positive(t, got.TTL, "%s was added without its life", key)
			present[strings.TrimPrefix(key, "crash/")] = true
		}
		if len(page) < 1000 {
			break
		}
		after = page[len(page)-1]
	}
	total := func() map[string]float64 {
		got, err := s.Sums().Get(ctx, "crash")
		require.NoError(t, err)
		return got
	}
	want := map[string]float64{"n": float64(len(present))}
	require.Equal(t, want, total(), "an add was done by half")

	documents, err := s.Documents().List(ctx, "crash/")
	require.NoError(t, err)
	values := map[string]string{}
	for _, doc := range documents {
		values[doc.Key] = string(doc.Value)
	}
	for _, identity := range acknowledged {
		require.True(t, present[identity], "%s was acknowledged and is lost", identity)
		if strings.HasSuffix(identity, "0") {
			require.Equal(t, identity, values["crash/"+identity])
		}
	}
	for identity := range present {
		applied, err := s.Sums().Add(ctx, identity, time.Hour, crashUpdates(identity)...)
		require.NoError(t, err)
		require.False(t, applied, "%s was forgotten", identity)
	}
	require.Equal(t, want, total())
}
