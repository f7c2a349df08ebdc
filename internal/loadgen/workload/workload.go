// SPDX-License-Identifier: Apache-2.0

// Package workload has what a load asks: inputs from a file, or made up from a signature.
package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/loadgen"
	"github.com/clipper-serving/clipper/internal/loadgen/target"
)

// Item is a query of a workload.
type Item struct {
	target.Input
	target.Params
	// Truth is the JSON of what was true; nil when nobody knows.
	Truth json.RawMessage
	// At is when the query was asked, since the first. A file has it for all items or for none.
	At    time.Duration
	timed bool
}

const (
	// maxLine is the longest line of a file.
	maxLine = 64 << 20
	// mostContext and mostPriority are what the API allows.
	mostContext, mostPriority = 256, 8
)

// Read reads a workload of JSON lines. A line is the natural JSON of an input, or an object with the member
// "input", and as may be "truth", "at" (seconds), "context", "priority" and "timeout" (seconds). The error names the line.
// timed is whether the items have times.
func Read(r io.Reader) (items []Item, timed bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	number := 0
	for lines.Scan() {
		number++
		text := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(text) == 0 {
			continue
		}
		item, err := parse(text)
		if err != nil {
			return nil, false, fmt.Errorf("line %d: %w", number, err)
		}
		switch {
		case len(items) == 0:
		case item.timed != items[0].timed:
			return nil, false, fmt.Errorf(`line %d: every line has "at", or none`, number)
		case item.At < items[len(items)-1].At:
			return nil, false, fmt.Errorf(`line %d: "at" must not go back`, number)
		}
		items = append(items, item)
	}
	if err := lines.Err(); err != nil {
		return nil, false, fmt.Errorf("line %d: %w", number+1, err)
	}
	if len(items) == 0 {
		return nil, false, errors.New("there is no line: expected the JSON of one input on each")
	}
	for i := range items[1:] {
		items[i+1].At -= items[0].At
	}
	timed = items[0].timed
	items[0].At = 0
	return items, timed, nil
}

// record is a line that is more than an input.
type record struct {
	Input    json.RawMessage `json:"input"`
	Truth    json.RawMessage `json:"truth"`
	At       *float64        `json:"at"`
	Context  string          `json:"context"`
	Priority uint32          `json:"priority"`
	Timeout  float64         `json:"timeout"`
}

func parse(text []byte) (Item, error) {
	if !json.Valid(text) {
		return Item{}, errors.New("is not JSON: expected one input, as in [0.1, 0.2]")
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(text, &members) // What is no object is an input.
	if members["input"] == nil {
		return Item{Input: target.Input{JSON: text}}, nil
	}
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Item{}, fmt.Errorf(`%w: beside "input" there may be "truth", "at", "context", "priority" and "timeout"`, err)
	}
	item := Item{Input: target.Input{JSON: r.Input}, Params: target.Params{Context: r.Context, Priority: r.Priority}, Truth: r.Truth}
	seconds := func(s float64) (time.Duration, bool) {
		return time.Duration(s * float64(time.Second)), s >= 0 && s < 9e9
	}
	var ok bool
	if r.At != nil {
		if item.At, ok = seconds(*r.At); !ok {
			return Item{}, errors.New(`"at" must be a number of seconds, at least 0`)
		}
		item.timed = true
	}
	if item.Timeout, ok = seconds(r.Timeout); !ok {
		return Item{}, errors.New(`"timeout" must be a number of seconds, at least 0`)
	}
	if len(r.Context) > mostContext || r.Priority > mostPriority {
		return Item{}, fmt.Errorf(`"context" may have %d bytes, "priority" be %d`, mostContext, mostPriority)
	}
	return item, nil
}

// Options are what is said of all queries; an item's own word wins.
type Options struct {
	target.Params
	// Contexts is how many contexts take turns at random: "load-0", "load-1" ...
	Contexts int
	// Seed makes the choices repeatable.
	Seed uint64
}

// Sender sends the items of a workload in turn. It implements [loadgen.Sender].
type Sender struct {
	client target.Client
	items  []Item
	calls  []target.Call
	o      Options
	// specs are those of inputs that are made up anew for every query.
	specs []*clipperv1.TensorSpec
}

// NewSender returns a sender. The error names the item that does not fit.
func NewSender(client target.Client, items []Item, o Options) (*Sender, error) {
	s := &Sender{client: client, items: items, o: o}
	for i := range items {
		call, err := client.Prepare(items[i].Input)
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i+1, err)
		}
		s.calls = append(s.calls, call)
	}
	return s, nil
}

// NewMadeUp returns a sender of inputs that are made up from a signature: of distinct ones in turn, or of
// another for each query when distinct is 0.
func NewMadeUp(client target.Client, specs []*clipperv1.TensorSpec, distinct int, o Options) (*Sender, error) {
	items := make([]Item, distinct)
	for i := range items {
		items[i].Tensors = MakeUp(specs, o.Seed, uint64(i)) //nolint:gosec // Not negative.
	}
	s, err := NewSender(client, items, o)
	if err == nil {
		s.specs = specs
	}
	return s, err
}

// Query implements loadgen.Sender.
func (s *Sender) Query(i int) func(context.Context) (loadgen.Answer, error) {
	p := s.o.Params
	var call target.Call
	if len(s.items) == 0 {
		var err error
		call, err = s.client.Prepare(target.Input{Tensors: MakeUp(s.specs, s.o.Seed, uint64(i))}) //nolint:gosec // Not negative.
		if err != nil {
			return func(context.Context) (loadgen.Answer, error) { return loadgen.Answer{}, err }
		}
	} else {
		k := i % len(s.items)
		call = s.calls[k]
		own := s.items[k].Params
		p.Context = own.Context
		p.Priority = cmp.Or(own.Priority, p.Priority)
		p.Timeout = cmp.Or(own.Timeout, p.Timeout)
	}
	if p.Context == "" && s.o.Contexts > 0 {
		random := rand.New(rand.NewPCG(s.o.Seed+1, uint64(i))) //nolint:gosec // A simulation.
		p.Context = "load-" + strconv.Itoa(random.IntN(s.o.Contexts))
	}
	return func(ctx context.Context) (loadgen.Answer, error) { return call(ctx, p) }
}

// Feedback implements loadgen.Sender. Without a truth there is none to give.
func (s *Sender) Feedback(ctx context.Context, i int, id string) error {
	return s.client.Feedback(ctx, id, s.items[i%len(s.items)].Truth)
}
