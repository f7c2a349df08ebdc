// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"
)

// sample spent ns in a stack, the innermost function first.
func sample(ns int64, label string, stack ...string) *profile.Sample {
	s := &profile.Sample{Value: []int64{1, ns}}
	if label != "" {
		s.Label = map[string][]string{partLabel: {label}}
	}
	for _, name := range stack {
		s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
	}
	return s
}

func TestReadProfile(t *testing.T) {
	const layer, container = "layer", "container"
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10_000_000,
		Sample: []*profile.Sample{
			// The layer's own code, a library that it called, and its transport.
			sample(1000, layer, "runtime.mallocgc", module+"abstraction/queue.(*Queue).Submit", module+"bench/layer.(*slot).next", module+"abstraction/replica.(*batch).reply"),
			sample(2000, layer, "google.golang.org/protobuf/proto.Marshal"),
			// The generator on the layer's goroutine; what tensor does is done for the one that asked.
			sample(4000, layer, "time.Now", module+"bench/layer.(*slot).next", module+"abstraction/replica.(*batch).reply"),
			sample(8000, layer, module+"internal/tensor.FromTensors", module+"bench/cost.input"),
			sample(16000, layer, module+"internal/tensor.(*Input).Hash", module+"abstraction/coalesce.(*Group).Submit"),
			sample(32000, container, module+"containerrpc/go.(*server).predict"),
			sample(64000, container, "syscall.Write"),
			sample(128000, "", "runtime.gcDrain"),
		},
	}
	for _, s := range p.Sample {
		for _, l := range s.Location {
			l.ID = uint64(len(p.Location) + 1)
			f := l.Line[0].Function
			f.ID = l.ID
			p.Location, p.Function = append(p.Location, l), append(p.Function, f)
		}
	}
	var b bytes.Buffer
	require.NoError(t, p.Write(&b))
	s, err := readProfile(b.Bytes(), 2)
	require.NoError(t, err)
	require.Equal(t, map[part]time.Duration{
		layerPart: 19 * time.Microsecond, generatorPart: 12 * time.Microsecond,
		containerPart: 96 * time.Microsecond, runtimePart: 128 * time.Microsecond,
	}, s.spent)
	require.Equal(t, 9.5, s.perQuery(layerPart))

	_, err = readProfile([]byte("no profile"), 1)
	require.Error(t, err)
}
