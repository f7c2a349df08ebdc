// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

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
	// window is the number of stores before they are judged.
	window = 4096
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

func newCounters() cache.Counters {
	counter := func(name string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "Counted."})
	}
	return cache.Counters{Hits: counter("hits_total"), Misses: counter("misses_total"), Stores: counter("stores_total"), Late: counter("late_total")}
}

func newCache(t testing.TB, bytes int64) *cache.Cache {
	c, err := cache.New(bytes)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func open(c *cache.Cache, version string, next prediction.Predictor) *cache.Version {
	return c.Open("m", version, next, newCounters())
}

func TestVersion_remembers(t *testing.T) {
	c, m, n := newCache(t, 1<<20), &model{says: "yes"}, newCounters()
	v := c.Open("m", "1", m, n)
	require.False(t, ask(v, input(1)).Cached)
	r := ask(v, input(1))
	require.True(t, r.Cached)
	require.Equal(t, []string{"yes"}, r.Outputs[0].Strings)
	require.False(t, ask(v, input(2)).Cached)
	require.Equal(t, 2, m.asked)
	require.InDelta(t, 1, testutil.ToFloat64(n.Hits), 0)
	require.InDelta(t, 2, testutil.ToFloat64(n.Misses), 0)

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

// number returns an input of its own for each n.
func number(n int) *tensor.Input { return input(binary.LittleEndian.AppendUint64(nil, uint64(n))...) }

// TestAdmission: what is hardly ever asked for again is hardly ever stored, and no longer than that.
func TestAdmission(t *testing.T) {
	const many = 5000
	c, n := newCache(t, 16<<20), newCounters()
	v := c.Open("m", "1", &model{says: "yes"}, n)
	stores := func(do func()) int {
		before := testutil.ToFloat64(n.Stores)
		do()
		return int(testutil.ToFloat64(n.Stores) - before)
	}
	fresh := 0
	scan := func() {
		for range many {
			ask(v, number(fresh))
			fresh++
		}
	}
	require.Less(t, stores(scan), many, "a scan is stored in the beginning")
	require.Less(t, stores(scan), many/20, "and not for long")
	require.Positive(t, stores(scan), "but for a sample")

	other := open(c, "2", &model{})
	require.False(t, ask(other, number(0)).Cached)
	require.True(t, ask(other, number(0)).Cached, "each version is judged by itself")

	for range 2 {
		ask(v, number(-1))
	}
	require.True(t, ask(v, number(-1)).Cached, "what is asked again is stored all the same")

	for i := range many {
		ask(v, number(-1))
		ask(v, number(fresh+i))
	}
	fresh += many
	require.Less(t, stores(scan), many/20, "one that is asked all the time makes the others no better")

	for i := range 400 { // Seen, stored, used.
		ask(v, number(fresh-1-i%100))
	}
	require.GreaterOrEqual(t, stores(scan), window, "when it is of use, everything is stored again")
}

// TestAdmission_findsWhatIsStored: little is looked up when little is stored, yet what is stored is
// found, by each of the versions that are asked about the same inputs; and every request is counted.
func TestAdmission_findsWhatIsStored(t *testing.T) {
	// Fewer repetitions than make the versions store and look up everything again.
	const versions, many, before, again = 4, 5000, 2, 5
	c, n := newCache(t, 64<<20), newCounters()
	var vs []*cache.Version
	for i := range versions {
		vs = append(vs, c.Open("m", fmt.Sprint(i), &model{says: fmt.Sprint(i)}, n))
	}
	asked, hits := 0, 0
	rate := func(from, to int) float64 {
		hitsBefore, askedBefore := hits, asked
		for i := from; i < to; i++ {
			for says, v := range vs {
				r := ask(v, number(i))
				require.Equal(t, fmt.Sprint(says), r.Outputs[0].Strings[0])
				asked++
				if r.Cached {
					hits++
				}
			}
		}
		return float64(hits-hitsBefore) / float64(asked-askedBefore)
	}
	require.Zero(t, rate(0, many), "little is stored from now on")
	// The traces are hints: a few of what is stored may have lost theirs.
	require.Greater(t, rate(window-before, window), 0.9, "what was stored before")
	require.Zero(t, rate(many, many+again))
	require.Zero(t, rate(many, many+again), "stored now")
	require.Greater(t, rate(many, many+again), 0.9, "and found")
	require.InDelta(t, hits, testutil.ToFloat64(n.Hits), 0)
	require.InDelta(t, asked-hits, testutil.ToFloat64(n.Misses), 0, "what is not looked up is a miss")
}

// TestVersion_keep: what comes late is stored also while little is, and can be recalled by its hash.
func TestVersion_keep(t *testing.T) {
	c, n := newCache(t, 16<<20), newCounters()
	v := c.Open("m", "1", &model{says: "yes"}, n)
	recalled := func(i int) bool {
		_, ok := v.Recall(number(i).Hash())
		return ok
	}
	late := []*clipperv1.Tensor{{Strings: []string{"late"}}}
	v.Keep(number(-1), late)
	require.False(t, recalled(-1), "everything is stored, so that the way of all predictions is enough")

	for i := range 2 * window {
		ask(v, number(i))
	}
	require.True(t, recalled(0))
	inVain := 0
	for i := window; i < 2*window; i++ {
		if !recalled(i) {
			inVain++
		}
	}
	require.Greater(t, inVain, window/2, "little is stored")
	for i := range 100 {
		v.Keep(number(-2-i), late)
	}
	for i := range 100 {
		outputs, ok := v.Recall(number(-2 - i).Hash())
		require.True(t, ok)
		require.Equal(t, "late", outputs[0].Strings[0])
		require.True(t, ask(v, number(-2-i)).Cached, "and found by those who ask")
	}
	require.InDelta(t, 101, testutil.ToFloat64(n.Late), 0)

	before := testutil.ToFloat64(n.Stores)
	for i := range 100 {
		v.Submit(&prediction.Request{Input: number(3*window + i), Keep: true, Receiver: &last{}})
		require.True(t, recalled(3*window+i), "so is what is to be kept")
	}
	require.InDelta(t, before+100, testutil.ToFloat64(n.Stores), 0)

	v.SetDisabled(true)
	v.Keep(number(-1000), late)
	require.False(t, recalled(-1000))
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

// function is a model that computes its answer from the input.
type function func(tensors []*clipperv1.Tensor) prediction.Result

func (f function) Submit(r *prediction.Request) {
	tensors, err := r.Input.Tensors()
	if err != nil {
		panic(err)
	}
	r.Reply(f(tensors))
}

// TestVersion_isTransparent: whatever is asked in whatever order, also while versions come and go in a
// cache that is too small for them, the answer is the one that the model gives.
func TestVersion_isTransparent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := cache.New(rapid.Int64Range(1<<10, 1<<14).Draw(t, "bytes"))
		require.NoError(t, err)
		defer c.Close()
		say := func(incarnation int, data []byte) string { return fmt.Sprintf("%d says %v", incarnation, data) }
		incarnation := 0
		deploy := func(name int) *cache.Version {
			incarnation++
			i := incarnation
			return c.Open("m", fmt.Sprint(name), function(func(in []*clipperv1.Tensor) prediction.Result {
				if len(in[0].Data) == 3 {
					return prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "three")}
				}
				return prediction.Result{Outputs: []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{say(i, in[0].Data)}}}}
			}), newCounters())
		}
		type deployed struct {
			version     *cache.Version
			incarnation int
		}
		versions := map[int]deployed{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			name := rapid.IntRange(0, 2).Draw(t, "version")
			if _, there := versions[name]; !there {
				v := deploy(name)
				versions[name] = deployed{v, incarnation}
			}
			v := versions[name]
			if rapid.IntRange(0, 20).Draw(t, "purge") == 0 {
				v.version.Purge()
				delete(versions, name)
				continue
			}
			data := rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 4).Draw(t, "input")
			r := ask(v.version, input(data...))
			if len(data) == 3 {
				require.NotNil(t, r.Err)
				require.False(t, r.Cached)
				continue
			}
			require.Equal(t, say(v.incarnation, data), r.Outputs[0].Strings[0])
		}
	})
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
	bench("miss of 4 bytes", false, func(i int) *tensor.Input { return input(byte(i), byte(i>>8), byte(i>>16), byte(i>>24)) })
	bench("miss of 3136 bytes", false, func(i int) *tensor.Input {
		data := make([]byte, 3136)
		binary.LittleEndian.PutUint64(data, uint64(i))
		return input(data...)
	})
	bench("disabled", true, func(i int) *tensor.Input { return input(byte(i), byte(i>>8), byte(i>>16), byte(i>>24)) })
}
