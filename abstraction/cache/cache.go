// SPDX-License-Identifier: Apache-2.0

// Package cache remembers predictions: (model, version, input) to outputs, bounded in bytes and
// shared by all versions of a service.
//
// Entries are found by a 128-bit hash of the input, and the whole input is compared before one
// answers, so that a collision costs a miss and never gives another query's prediction. Eviction is
// W-TinyLFU, which keeps what is asked often and lets a scan pass by (Einziger, Friedman and Manes,
// "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS 2017). A version whose predictions
// are hardly ever asked for again stores and looks up few of them, so that its misses cost little
// ([admission]).
package cache

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// entryOverhead is what an entry takes besides its elements, in bytes: the table's node, the
// slices' headers and the rounding of the allocator. tensorOverhead is what a tensor does.
const (
	entryOverhead  = 384
	tensorOverhead = 192
)

// Cache holds the predictions of many model versions. Safe for concurrent use.
type Cache struct {
	entries *otter.Cache[key, *entry]
	traces  traces

	mu       sync.RWMutex
	versions map[name]*Version
	lastID   uint64
}

type name struct{ model, version string }

// key begins with the identity of a Version, not with its name, so that what is still being
// computed when a version is purged cannot answer for a later version of the same name.
type key struct {
	version uint64
	hash    xxh3.Uint128
}

type entry struct {
	inputs, outputs []*clipperv1.Tensor
	weight          uint32
	used            atomic.Bool // has answered
}

// New returns a cache that holds at most maxBytes of inputs and outputs, overhead included.
func New(maxBytes int64) (*Cache, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("cache: the size must be positive, not %d", maxBytes)
	}
	t := newTraces(maxBytes)
	entries, err := otter.New(&otter.Options[key, *entry]{
		MaximumWeight: uint64(maxBytes - t.bytes()),
		Weigher:       func(_ key, e *entry) uint32 { return e.weight },
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Cache{entries: entries, traces: t, versions: map[name]*Version{}}, nil
}

// Close stops the cache's goroutines.
func (c *Cache) Close() { c.entries.StopAllGoroutines() }

// Bytes returns the bytes that are held now.
func (c *Cache) Bytes() int64 { return int64(c.entries.WeightedSize()) }

// Lookup returns what a version is remembered to have said about an input. It counts neither as a
// hit nor as a miss.
func (c *Cache) Lookup(model, version string, in *tensor.Input) ([]*clipperv1.Tensor, bool) {
	c.mu.RLock()
	v := c.versions[name{model, version}]
	c.mu.RUnlock()
	if v == nil {
		return nil, false
	}
	e := v.lookup(key{v.id, in.Hash()}, in)
	if e == nil {
		return nil, false
	}
	return e.outputs, true
}

// Version is one model version's share of the cache: a Predictor that answers what it remembers
// and asks the next one for the rest. Safe for concurrent use.
type Version struct {
	cache     *Cache
	name      name
	id        uint64
	next      prediction.Predictor
	counters  Counters
	admission admission
	disabled  atomic.Bool
}

// Counters count what a version's share of the cache does.
type Counters struct {
	// Hits and Misses are requests that were and were not answered from the cache.
	Hits, Misses prometheus.Counter
	// Stores are predictions that were remembered.
	Stores prometheus.Counter
	// Late are predictions that came when nobody waited any more.
	Late prometheus.Counter
}

// Open returns the share of a version in front of next. A version of the same name that was open
// before is forgotten.
func (c *Cache) Open(model, version string, next prediction.Predictor, counters Counters) *Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	v := &Version{cache: c, name: name{model, version}, id: c.lastID, next: next, counters: counters}
	c.versions[v.name] = v
	return v
}

// SetDisabled turns the cache off or on for this version. What is remembered stays.
func (v *Version) SetDisabled(disabled bool) { v.disabled.Store(disabled) }

// Purge forgets the version and all its predictions for good; from then on it only passes on.
func (v *Version) Purge() {
	v.SetDisabled(true)
	v.cache.mu.Lock()
	if v.cache.versions[v.name] == v {
		delete(v.cache.versions, v.name)
	}
	v.cache.mu.Unlock()
	for k := range v.cache.entries.Keys() {
		if k.version == v.id {
			v.cache.entries.Invalidate(k)
		}
	}
	v.cache.entries.CleanUp() // Lets go of the memory now.
}

// Submit implements prediction.Predictor.
func (v *Version) Submit(r *prediction.Request) {
	if v.disabled.Load() {
		v.next.Submit(r)
		return
	}
	k := key{v.id, r.Input.Hash()}
	t := v.cache.traces.of(k)
	if v.admission.worthLookup(k, t) {
		if e := v.lookup(k, r.Input); e != nil {
			v.counters.Hits.Inc()
			if !e.used.Load() && e.used.CompareAndSwap(false, true) {
				v.admission.hit()
			}
			r.Reply(prediction.Result{Outputs: e.outputs, Cached: true})
			return
		}
	}
	v.counters.Misses.Inc()
	worth := v.admission.worthStore(k, t)
	if !worth && !r.Keep {
		v.next.Submit(r)
		return
	}
	m := &miss{version: v, request: *r, kept: !worth}
	m.request.Receiver = m
	m.receiver = r.Receiver
	v.next.Submit(&m.request)
}

// lookup returns the entry of an input, or nil.
func (v *Version) lookup(k key, in *tensor.Input) *entry {
	e, ok := v.cache.entries.GetIfPresent(k)
	if !ok {
		return nil
	}
	inputs, err := in.Tensors()
	if err != nil || !tensor.EqualAll(e.inputs, inputs) {
		return nil
	}
	return e
}

// miss stands between the one who asked and the next predictor, and remembers what comes back.
type miss struct {
	version  *Version
	request  prediction.Request
	receiver prediction.Receiver
	kept     bool // only because the one who asked wants it
}

// Receive implements prediction.Receiver. The answer goes out before it is remembered: nobody
// waits for the cache.
func (m *miss) Receive(tag int, r prediction.Result) {
	m.receiver.Receive(tag, r)
	switch {
	case r.Err != nil || m.version.disabled.Load():
	case m.kept:
		m.version.put(m.request.Input, r.Outputs)
	default:
		m.version.remember(m.request.Input, r.Outputs)
	}
}

// Keep remembers a prediction that came too late for the one who had asked. It is kept whatever the
// admission says, since feedback on the answer may ask for it, see [Version.Recall]; and says nothing
// about how useful stores are.
func (v *Version) Keep(in *tensor.Input, outputs []*clipperv1.Tensor) {
	v.counters.Late.Inc()
	if v.disabled.Load() || v.admission.everything() {
		return // In the second case it is remembered like any other.
	}
	v.put(in, outputs)
}

// Recall returns what is remembered for the input with this hash, which is not compared: nobody is
// answered with it. It counts neither as a hit nor as a miss.
func (v *Version) Recall(hash xxh3.Uint128) ([]*clipperv1.Tensor, bool) {
	e, ok := v.cache.entries.GetIfPresent(key{v.id, hash})
	if !ok {
		return nil, false
	}
	return e.outputs, true
}

func (v *Version) remember(in *tensor.Input, outputs []*clipperv1.Tensor) {
	if v.put(in, outputs) {
		v.admission.store()
	}
}

// put puts an entry into the table. It reports whether it could.
func (v *Version) put(in *tensor.Input, outputs []*clipperv1.Tensor) bool {
	inputs, err := in.Tensors()
	if err != nil {
		return false
	}
	weight := entryOverhead + size(inputs) + size(outputs)
	if weight > math.MaxUint32 {
		return false
	}
	k := key{v.id, in.Hash()}
	// Of the input only the tensors are kept: nobody compares its encoded form.
	v.cache.entries.Set(k, &entry{inputs: inputs, outputs: clone(outputs), weight: uint32(weight)})
	v.cache.traces.of(k).note(stored)
	v.counters.Stores.Inc()
	if v.disabled.Load() { // Purge may have passed between the check and the Set.
		v.cache.entries.Invalidate(k)
	}
	return true
}

// size returns the bytes that tensors take.
func size(tensors []*clipperv1.Tensor) int {
	n := 0
	for _, t := range tensors {
		n += tensorOverhead + len(t.Name) + 8*len(t.Shape) + len(t.Data)
		for _, s := range t.Strings {
			n += len(s) + 16
		}
		for _, s := range t.ByteStrings {
			n += len(s) + 24
		}
	}
	return n
}

// clone copies the elements: a row of a batch is a slice of the batch's buffer, and would keep the
// whole of it.
func clone(tensors []*clipperv1.Tensor) []*clipperv1.Tensor {
	copies := make([]clipperv1.Tensor, len(tensors))
	out := make([]*clipperv1.Tensor, len(tensors))
	for i, t := range tensors {
		c := &copies[i]
		c.Name, c.DataType, c.Shape, c.Data = t.Name, t.DataType, t.Shape, slices.Clone(t.Data)
		for _, s := range t.Strings {
			c.Strings = append(c.Strings, strings.Clone(s))
		}
		for _, s := range t.ByteStrings {
			c.ByteStrings = append(c.ByteStrings, slices.Clone(s))
		}
		out[i] = c
	}
	return out
}
