// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience and tick are for what the cache does on its own time.
const (
	patience = 10 * time.Second
	tick     = 5 * time.Millisecond
)

func input(data ...byte) *tensor.Input {
	return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(len(data))}, Data: data}})
}

// model answers with its own text and counts.
type model struct {
	mu    sync.Mutex
	says  string
	err   *prediction.Error
	asked int
	buf   []byte
}

func (m *model) Submit(r *prediction.Request) {
	m.mu.Lock()
	m.asked++
	res := prediction.Result{Err: m.err}
	if m.err == nil {
		res.Outputs = []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{m.says}, Data: m.buf}}
	}
	m.mu.Unlock()
	r.Reply(res)
}

type last struct{ result prediction.Result }

func (l *last) Receive(_ int, r prediction.Result) { l.result = r }

func ask(p prediction.Predictor, in *tensor.Input) prediction.Result {
	var l last
	p.Submit(&prediction.Request{Input: in, Receiver: &l})
	return l.result
}

type counters struct{ hits, misses prometheus.Counter }

func newCounters() counters {
	return counters{prometheus.NewCounter(prometheus.CounterOpts{Name: "hits_total", Help: "Hits."}), prometheus.NewCounter(prometheus.CounterOpts{Name: "misses_total", Help: "Misses."})}
}

func newCache(t testing.TB, bytes int64) *cache.Cache {
	c, err := cache.New(bytes)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func open(c *cache.Cache, version string, next prediction.Predictor) *cache.Version {
	n := newCounters()
	return c.Open("m", version, next, n.hits, n.misses)
}

func TestVersion_remembers(t *testing.T) {
	c, m, n := newCache(t, 1<<20), &model{says: "yes"}, newCounters()
	v := c.Open("m", "1", m, n.hits, n.misses)
	require.False(t, ask(v, input(1)).Cached)
	r := ask(v, input(1))
	require.True(t, r.Cached)
	require.Equal(t, []string{"yes"}, r.Outputs[0].Strings)
	require.False(t, ask(v, input(2)).Cached)
	require.Equal(t, 2, m.asked)
	require.InDelta(t, 1, testutil.ToFloat64(n.hits), 0)
	require.InDelta(t, 2, testutil.ToFloat64(n.misses), 0)

	encoded, err := proto.Marshal(&internalv1.Input{Tensors: []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1}, Data: []byte{1}}}})
	require.NoError(t, err)
	require.True(t, ask(v, tensor.FromEncoded(encoded)).Cached, "whichever form an input came in")
}

func TestVersion_tellsVersionsAndShapesApart(t *testing.T) {
	c := newCache(t, 1<<20)
	one, two := open(c, "1", &model{says: "one"}), open(c, "2", &model{says: "two"})
	ask(one, input(1, 2))
	require.False(t, ask(two, input(1, 2)).Cached)
	require.Equal(t, "one", ask(one, input(1, 2)).Outputs[0].Strings[0])
	require.Equal(t, "two", ask(two, input(1, 2)).Outputs[0].Strings[0])
	square := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{2, 1}, Data: []byte{1, 2}}})
	require.False(t, ask(one, square).Cached)
}

func TestVersion_forgetsErrors(t *testing.T) {
	c, m := newCache(t, 1<<20), &model{err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "no")}
	v := open(c, "1", m)
	require.NotNil(t, ask(v, input(1)).Err)
	m.err = nil
	r := ask(v, input(1))
	require.Nil(t, r.Err)
	require.False(t, r.Cached)
}

func TestVersion_disabled(t *testing.T) {
	c, m := newCache(t, 1<<20), &model{}
	v := open(c, "1", m)
	v.SetDisabled(true)
	ask(v, input(1))
	require.False(t, ask(v, input(1)).Cached)
	v.SetDisabled(false)
	require.False(t, ask(v, input(1)).Cached)
	require.True(t, ask(v, input(1)).Cached)
}

// TestVersion_purge: a version that is deleted and made again under the same name knows nothing of
// the first, not even of what was under way.
func TestVersion_purge(t *testing.T) {
	c := newCache(t, 1<<20)
	late := &holding{}
	old := open(c, "1", late)
	old.Submit(&prediction.Request{Input: input(1), Receiver: &last{}})
	other := open(c, "2", &model{says: "other"})
	ask(other, input(1))
	old.Purge()
	again := open(c, "1", &model{says: "new"})
	late.request.Reply(prediction.Result{Outputs: []*clipperv1.Tensor{{}}})
	require.False(t, ask(again, input(1)).Cached)
	require.Equal(t, "new", ask(again, input(1)).Outputs[0].Strings[0])
	require.True(t, ask(other, input(1)).Cached, "other versions keep theirs")
	again.Purge()
	other.Purge()
	require.Zero(t, c.Bytes())
}

// holding keeps one request.
type holding struct{ request *prediction.Request }

func (h *holding) Submit(r *prediction.Request) { h.request = r }

func TestLookup(t *testing.T) {
	c := newCache(t, 1<<20)
	v := open(c, "1", &model{says: "yes"})
	ask(v, input(1))
	outputs, ok := c.Lookup("m", "1", input(1))
	require.True(t, ok)
	require.Equal(t, "yes", outputs[0].Strings[0])
	for _, miss := range []struct{ model, version string }{{"m", "2"}, {"x", "1"}} {
		_, ok = c.Lookup(miss.model, miss.version, input(1))
		require.False(t, ok)
	}
	_, ok = c.Lookup("m", "1", input(2))
	require.False(t, ok)
}

func TestCache_copiesRows(t *testing.T) {
	c, m := newCache(t, 1<<20), &model{buf: []byte("batch")}
	v := open(c, "1", m)
	ask(v, input(1))
	m.buf[0] = 'X'
	require.Equal(t, "batch", string(ask(v, input(1)).Outputs[0].Data))
}

func TestCache_isBounded(t *testing.T) {
	const limit = 100 << 10
	c := newCache(t, limit)
	v := open(c, "1", &model{says: "yes"})
	for i := range 5000 {
		ask(v, input(byte(i), byte(i>>8), 0, 0))
	}
	require.Eventually(t, func() bool { return c.Bytes() <= limit }, patience, tick)
	require.Positive(t, c.Bytes())
	huge := make([]byte, limit)
	ask(v, input(huge...))
	require.Eventually(t, func() bool { return !ask(v, input(huge...)).Cached }, patience, tick, "what is larger than the cache is not kept")
	_, err := cache.New(0)
	require.Error(t, err)
}

func TestCache_concurrently(t *testing.T) {
	c := newCache(t, 64<<10)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for round := range 20 {
				version := fmt.Sprint(w % 2)
				v := open(c, version, &model{says: version})
				for i := range 50 {
					r := ask(v, input(byte(i)))
					if r.Outputs[0].Strings[0] != version {
						t.Errorf("version %s answered %s", version, r.Outputs[0].Strings[0])
					}
				}
				if round%2 == 0 {
					v.Purge()
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkVersion(b *testing.B) {
	in := input(make([]byte, 3136)...)
	in.Hash()
	bench := func(name string, disabled bool, inputs func(i int) *tensor.Input) {
		b.Run(name, func(b *testing.B) {
			v := open(newCache(b, 16<<20), "1", &model{says: "yes"})
			v.SetDisabled(disabled)
			r := &prediction.Request{Receiver: &last{}}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				r.Input = inputs(i)
				v.Submit(r)
				i++
			}
		})
	}
	bench("hit", false, func(int) *tensor.Input { return in })
	bench("equal input", false, func(int) *tensor.Input { return input(1, 2, 3, 4) })
	bench("miss", false, func(i int) *tensor.Input { return input(byte(i), byte(i>>8), byte(i>>16), byte(i>>24)) })
	bench("disabled", true, func(i int) *tensor.Input { return input(byte(i), byte(i>>8), byte(i>>16), byte(i>>24)) })
}
