// SPDX-License-Identifier: Apache-2.0

package deadline_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/deadline"
)

type key struct{}

// chain is a context within a context, each with a deadline.
func chain(t *testing.T, outer, inner time.Duration) (o, i *deadline.Context, cancel context.CancelFunc) {
	root, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	t.Cleanup(cancel)
	o = deadline.With(root, time.Now().Add(outer))
	t.Cleanup(o.Cancel)
	i = deadline.With(o, time.Now().Add(inner))
	t.Cleanup(i.Cancel)
	return o, i, cancel
}

func TestContext_ends(t *testing.T) {
	for name, tc := range map[string]struct {
		outer, inner time.Duration
		end          func(o, i *deadline.Context, root context.CancelFunc)
		err          error
	}{
		"at its deadline":        {time.Hour, time.Second, func(_, _ *deadline.Context, _ context.CancelFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"at the outer deadline":  {time.Second, time.Hour, func(_, _ *deadline.Context, _ context.CancelFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"when cancelled":         {time.Hour, time.Hour, func(_, i *deadline.Context, _ context.CancelFunc) { i.Cancel() }, context.Canceled},
		"with the outer one":     {time.Hour, time.Hour, func(o, _ *deadline.Context, _ context.CancelFunc) { o.Cancel() }, context.Canceled},
		"with the one around it": {time.Hour, time.Hour, func(_, _ *deadline.Context, root context.CancelFunc) { root() }, context.Canceled},
	} {
		for _, early := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o, i, root := chain(t, tc.outer, tc.inner)
					require.NoError(t, i.Err())
					at, ok := i.Deadline()
					require.True(t, ok)
					require.Equal(t, time.Now().Add(min(tc.outer, tc.inner)), at)
					require.Equal(t, "value", i.Value(key{}))
					if early { // Done is asked for before the end.
						select {
						case <-i.Done():
							t.Fatal("it has ended too early")
						default:
						}
					}
					tc.end(o, i, root)
					synctest.Wait()
					require.ErrorIs(t, i.Err(), tc.err)
					<-i.Done()
				})
			})
		}
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, i, _ := chain(t, time.Hour, time.Second)
		results := make(chan int, 1)
		results <- 7
		got, ok := deadline.Wait(i, results)
		require.True(t, ok)
		require.Equal(t, 7, got)

		begin := time.Now()
		_, ok = deadline.Wait(i, results)
		require.False(t, ok)
		require.Equal(t, time.Second, time.Since(begin))

		_, i, root := chain(t, time.Hour, time.Minute)
		root()
		_, ok = deadline.Wait(i, results)
		require.False(t, ok)

		standard, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, ok = deadline.Wait(standard, results)
		require.False(t, ok)
		results <- 8
		got, ok = deadline.Wait(t.Context(), results)
		require.True(t, ok)
		require.Equal(t, 8, got)
	})
}

func BenchmarkContext(b *testing.B) {
	results := make(chan int, 1)
	b.ReportAllocs()
	for b.Loop() {
		o := deadline.With(b.Context(), time.Now().Add(time.Hour))
		i := deadline.With(o, time.Now().Add(time.Minute))
		results <- 1
		_, _ = deadline.Wait(i, results)
		i.Cancel()
		o.Cancel()
	}
}
