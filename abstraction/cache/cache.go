// SPDX-License-Identifier: Apache-2.0

// Package cache remembers predictions: (model, version, input) to outputs, bounded in bytes and
// shared by all versions of a service.
//
// Entries are found by a 128-bit hash of the input, and the whole input is compared before one
// answers, so that a collision costs a miss and never gives another query's prediction. Eviction is
// W-TinyLFU, which keeps what is asked often and lets a scan pass by (Einziger, Friedman and Manes,
// "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS 2017).
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
// messages' own fields, slice headers and the rounding of the allocator.
const entryOverhead = 512

// Cache holds the predictions of many model versions. Safe for concurrent use.
type Cache struct {
	entries *otter.Cache[key, *entry]

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
	input   *tensor.Input
	outputs []*clipperv1.Tensor
	weight  uint32
}

// New returns a cache that holds at most maxBytes of inputs and outputs, overhead included.
func New(maxBytes int64) (*Cache, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("cache: the size must be positive, not %d", maxBytes)
	}
	entries, err := otter.New(&otter.Options[key, *entry]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       func(_ key, e *entry) uint32 { return e.weight },
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Cache{entries: entries, versions: map[name]*Version{}}, nil
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
	return v.lookup(in)
}

// Version is one model version's share of the cache: a Predictor that answers what it remembers
// and asks the next one for the rest. Safe for concurrent use.
type Version struct {
	cache        *Cache
	name         name
	id           uint64
	next         prediction.Predictor
	hits, misses prometheus.Counter
	disabled     atomic.Bool
}

// Open returns the share of a version in front of next. A version of the same name that was open
// before is forgotten.
func (c *Cache) Open(model, version string, next prediction.Predictor, hits, misses prometheus.Counter) *Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	v := &Version{cache: c, name: name{model, version}, id: c.lastID, next: next, hits: hits, misses: misses}
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
	if outputs, ok := v.lookup(r.Input); ok {
		v.hits.Inc()
		r.Reply(prediction.Result{Outputs: outputs, Cached: true})
		return
	}
	v.misses.Inc()
	m := &miss{version: v, request: *r}
	m.request.Receiver = m
	m.receiver = r.Receiver
	v.next.Submit(&m.request)
}

func (v *Version) lookup(in *tensor.Input) ([]*clipperv1.Tensor, bool) {
	e, ok := v.cache.entries.GetIfPresent(key{v.id, in.Hash()})
	if !ok || !tensor.Equal(e.input, in) {
		return nil, false
	}
	return e.outputs, true
}

// miss stands between the one who asked and the next predictor, and remembers what comes back.
type miss struct {
	version  *Version
	request  prediction.Request
	receiver prediction.Receiver
}

// Receive implements prediction.Receiver. The answer goes out before it is remembered: nobody
// waits for the cache.
func (m *miss) Receive(tag int, r prediction.Result) {
	m.receiver.Receive(tag, r)
	if r.Err == nil && !m.version.disabled.Load() {
		m.version.remember(m.request.Input, r.Outputs)
	}
}

func (v *Version) remember(in *tensor.Input, outputs []*clipperv1.Tensor) {
	inputs, err := in.Tensors()
	if err != nil {
		return
	}
	weight := entryOverhead + size(inputs) + size(outputs)
	if weight > math.MaxUint32 {
		return
	}
	// A new Input drops the encoded form, which nobody compares.
	e := &entry{input: tensor.FromTensors(inputs), outputs: clone(outputs), weight: uint32(weight)}
	k := key{v.id, in.Hash()}
	v.cache.entries.Set(k, e)
	if v.disabled.Load() { // Purge may have passed between the check and the Set.
		v.cache.entries.Invalidate(k)
	}
}

// size returns the bytes of the elements.
func size(tensors []*clipperv1.Tensor) int {
	n := 0
	for _, t := range tensors {
		n += len(t.Data)
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
	out := make([]*clipperv1.Tensor, len(tensors))
	for i, t := range tensors {
		c := &clipperv1.Tensor{Name: t.Name, DataType: t.DataType, Shape: t.Shape, Data: slices.Clone(t.Data)}
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
