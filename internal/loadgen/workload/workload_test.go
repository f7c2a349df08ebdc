// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/loadgen"
	"github.com/clipper-serving/clipper/internal/loadgen/target"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestRead(t *testing.T) {
	items, timed, err := Read(strings.NewReader(`
[1, 2]
"text"
{"a": [1], "b": 2}

{"input": {"input": 1}, "truth": null, "context": "u", "priority": 2, "timeout": 0.5}
`))
	require.NoError(t, err)
	require.False(t, timed)
	require.Len(t, items, 4)
	require.Equal(t, `[1, 2]`, string(items[0].JSON))
	require.JSONEq(t, `{"a": [1], "b": 2}`, string(items[2].JSON))
	last := items[3]
	require.JSONEq(t, `{"input": 1}`, string(last.JSON))
	require.Equal(t, "null", string(last.Truth))
	require.Equal(t, target.Params{Context: "u", Priority: 2, Timeout: 500 * time.Millisecond}, last.Params)
	require.Nil(t, items[0].Truth)

	items, timed, err = Read(strings.NewReader(`{"input": 1, "at": 1700000000}` + "\n" + `{"input": 2, "at": 1700000000.25}`))
	require.NoError(t, err)
	require.True(t, timed)
	require.Zero(t, items[0].At)
	require.Equal(t, 250*time.Millisecond, items[1].At.Round(time.Millisecond))
}

func TestRead_bad(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "there is no line",
		"\n\n":                          "there is no line",
		"1\n[1,":                        "line 2: is not JSON",
		`{"input": 1, "tuth": 2}`:       `unknown field "tuth"`,
		`{"input": 1, "at": -1}`:        "at least 0",
		`{"input": 1, "timeout": -1}`:   "at least 0",
		`{"input": 1, "priority": 9}`:   `"priority" be 8`,
		"1\n" + `{"input": 1, "at": 1}`: `line 2: every line has "at", or none`,
		`{"input":1,"at":2}` + "\n{\"input\":1,\"at\":1}": `line 2: "at" must not go back`,
	} {
		_, _, err := Read(strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestMakeUp(t *testing.T) {
	var specs []*clipperv1.TensorSpec
	for _, kind := range clipperv1.DataType_value {
		if kind != 0 {
			specs = append(specs, &clipperv1.TensorSpec{Name: clipperv1.DataType(kind).String(), DataType: clipperv1.DataType(kind), Shape: []int64{-1, 3}})
		}
	}
	specs = specs[:len(specs):len(specs)]
	for i, spec := range specs {
		if spec.DataType == clipperv1.DataType_DATA_TYPE_BYTES { // Metadata does not tell it from text.
			specs = append(specs[:i:i], specs[i+1:]...)
			break
		}
	}
	a := MakeUp(specs, 1, 1)
	require.NoError(t, tensor.CheckInput(a, &clipperv1.Signature{Inputs: specs}))
	for i := range a {
		require.Equal(t, []int64{openLength, 3}, a[i].Shape)
		require.Equal(t, -1, tensor.Finite(a[i]))
	}
	require.True(t, tensor.EqualAll(a, MakeUp(specs, 1, 1)))
	require.False(t, tensor.EqualAll(a, MakeUp(specs, 1, 2)))
	require.False(t, tensor.EqualAll(a, MakeUp(specs, 2, 1)))
	require.Empty(t, MakeUp(specs[:1], 1, 1)[0].Name)
}

// client is a fake that records what it was asked.
type client struct {
	target.Client
	asked []any
}

func (c *client) Prepare(input target.Input) (target.Call, error) {
	return func(_ context.Context, p target.Params) (loadgen.Answer, error) {
		if input.JSON != nil {
			c.asked = append(c.asked, string(input.JSON), p)
		} else {
			c.asked = append(c.asked, input.Tensors, p)
		}
		return loadgen.Answer{}, nil
	}, nil
}

func (c *client) Feedback(_ context.Context, id string, truth json.RawMessage) error {
	c.asked = append(c.asked, id, string(truth))
	return nil
}

func TestSender(t *testing.T) {
	c := &client{}
	s, err := NewSender(c, []Item{
		{Input: target.Input{JSON: []byte("1")}, Truth: json.RawMessage("7")},
		{Input: target.Input{JSON: []byte("2")}, Params: target.Params{Context: "own", Priority: 1, Timeout: time.Second}, Truth: json.RawMessage("8")},
	}, Options{Params: target.Params{Priority: 5, Timeout: time.Minute}, Contexts: 1})
	require.NoError(t, err)
	for i := range 3 {
		_, err := s.Query(i)(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, s.Feedback(t.Context(), 3, "id"))
	all := target.Params{Context: "load-0", Priority: 5, Timeout: time.Minute}
	require.Equal(t, []any{"1", all, "2", target.Params{Context: "own", Priority: 1, Timeout: time.Second}, "1", all, "id", "8"}, c.asked)
}

func TestSender_madeUp(t *testing.T) {
	specs := []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{2}}}
	for distinct, want := range map[int]int{0: 6, 2: 2} {
		c := &client{}
		s, err := NewMadeUp(c, specs, distinct, Options{})
		require.NoError(t, err)
		different := map[string]bool{}
		for i := range 6 {
			_, err := s.Query(i)(t.Context())
			require.NoError(t, err)
			different[string(c.asked[2*i].([]*clipperv1.Tensor)[0].Data)] = true
		}
		require.Len(t, different, want)
	}
}
