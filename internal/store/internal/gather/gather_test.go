// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

type item struct{ in, out int }

func TestDo_gathersWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches []int
		release := make(chan struct{})
		g := New(1, 3, func(items []*item) {
			batches = append(batches, len(items))
			for _, it := range items {
				it.out = it.in * 2
			}
			<-release
		})
		var callers sync.WaitGroup
		call := func(in int) {
			callers.Go(func() {
				it := &item{in: in}
				if err := g.Do(t.Context(), it); err != nil || it.out != 2*in {
					t.Errorf("Do(%d) = %v, %d", in, err, it.out)
				}
			})
		}
		call(0)
		synctest.Wait() // the first is being flushed, alone and at once
		for in := range 5 {
			call(in)
		}
		synctest.Wait()
		close(release)
		callers.Wait()
		g.Close()
		require.Equal(t, []int{1, 3, 2}, batches)
	})
}

func TestDo_callerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		flushed := 0
		g := New(1, 10, func(items []*item) {
			<-release
			flushed += len(items)
		})
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		for range 2 { // one is being flushed, one waits for its turn
			go func() { results <- g.Do(ctx, &item{}) }()
			synctest.Wait()
		}
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		require.ErrorIs(t, <-results, context.Canceled)
		close(release)
		synctest.Wait()
		require.Equal(t, 1, flushed, "who left before being taken is not flushed")
		require.ErrorIs(t, g.Do(ctx, &item{}), context.Canceled)
		g.Close()
	})
}

func TestClose_finishesWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := New(2, 1, func([]*item) { <-release })
		results := make(chan error, 3)
		for range 3 {
			go func() { results <- g.Do(t.Context(), &item{}) }()
		}
		synctest.Wait()
		closed := make(chan struct{})
		go func() { g.Close(); close(closed) }()
		synctest.Wait()
		require.ErrorIs(t, <-results, ErrClosed, "the one that no worker had taken")
		close(release)
		<-closed
		require.NoError(t, <-results)
		require.NoError(t, <-results)
		require.ErrorIs(t, g.Do(t.Context(), &item{}), ErrClosed)
		g.Close()
	})
}
