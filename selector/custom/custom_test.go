// SPDX-License-Identifier: Apache-2.0

package custom

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/custom/customtest"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFallback(t *testing.T) {
	policytest.Conformance(t, NewFallback([]string{"tries", "regret"}))
}

func TestCheckAddress(t *testing.T) {
	for _, address := range []string{"localhost:7100", "127.0.0.1:1", "127.3.2.1:65535", "[::1]:7100", "unix:///run/policy.sock", "unix:/run/policy.sock"} {
		require.NoError(t, CheckAddress(address, nil), address)
	}
	for _, address := range []string{"policy:7100", "10.0.0.1:7100", "localhost.example:7100", "[::2]:7100"} {
		require.ErrorContains(t, CheckAddress(address, []string{"other"}), "policy-hosts", address)
		require.NoError(t, CheckAddress(address, []string{"*"}), address)
	}
	require.NoError(t, CheckAddress("policy:7100", []string{"other", "policy"}))
	for _, address := range []string{"", "localhost", ":7100", "localhost:", "localhost:http", "localhost:0", "localhost:65536", "dns:///localhost:7100", "passthrough:///x:1", "unix:", "unix:x", "unix-abstract:x", strings.Repeat("x", 257) + ":1"} {
		require.Error(t, CheckAddress(address, []string{"*"}), address)
	}
}

// TestToProto says that what a policy gets is what it may answer.
func TestToProto(t *testing.T) {
	label := output.Spec{Task: policy.Task{Kind: policy.Label}, DataType: clipperv1.DataType_DATA_TYPE_INT64}
	text := output.Spec{Task: policy.Task{Kind: policy.Label}, DataType: clipperv1.DataType_DATA_TYPE_STRING}
	number := output.Spec{Task: policy.Task{Kind: policy.Number}, DataType: clipperv1.DataType_DATA_TYPE_FLOAT64}
	scores := output.Spec{Task: policy.Task{Kind: policy.Scores}, DataType: clipperv1.DataType_DATA_TYPE_FLOAT64}
	rapid.Check(t, func(t *rapid.T) {
		float := rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64)
		for spec, v := range map[*output.Spec]policy.Value{
			&label:  policy.Integer(rapid.Int64().Draw(t, "label")),
			&text:   policy.Text(rapid.String().Draw(t, "text")),
			&number: policy.Real(float.Draw(t, "number")),
			&scores: policy.Vector(rapid.SliceOfN(float, 1, 5).Draw(t, "scores")),
		} {
			back, err := spec.Output(toProto(v))
			require.NoError(t, err)
			require.True(t, back.Same(v), "%v is %v", v, back)
		}
	})
	require.Nil(t, toProto(policy.Value{}))
}

func TestFeatures(t *testing.T) {
	floats := func(xs ...float64) *clipperv1.Tensor {
		f := &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{int64(len(xs))}}
		for _, x := range xs {
			f.Data = binary.LittleEndian.AppendUint64(f.Data, math.Float64bits(x))
		}
		return f
	}
	bytes := &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1, 2}, Data: []byte{3, 255}}
	text := &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"x"}}
	for name, tc := range map[string]struct {
		tensors []*clipperv1.Tensor
		want    []float64
	}{
		"numbers":       {[]*clipperv1.Tensor{floats(1.5, -2), bytes}, []float64{1.5, -2, 3, 255}},
		"as many":       {[]*clipperv1.Tensor{floats(make([]float64, 64)...)}, make([]float64, 64)},
		"too many":      {[]*clipperv1.Tensor{floats(make([]float64, 65)...)}, nil},
		"too many both": {[]*clipperv1.Tensor{floats(make([]float64, 63)...), bytes}, nil},
		"text":          {[]*clipperv1.Tensor{floats(1), text}, nil},
		"not finite":    {[]*clipperv1.Tensor{floats(1, math.NaN())}, nil},
		"cut off":       {[]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{2}, Data: make([]byte, 8)}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, features(tensor.FromTensors(tc.tensors)))
		})
	}
	require.Nil(t, features(nil))
}

func TestCheckParameters(t *testing.T) {
	require.NoError(t, CheckParameters(map[string]float64{"epsilon": 0.1}))
	for name, parameters := range map[string]map[string]float64{
		"no name": {"": 1}, "a long name": {strings.Repeat("x", 65): 1}, "infinite": {"x": math.Inf(-1)},
	} {
		var parameter *ParameterError
		require.ErrorAs(t, CheckParameters(parameters), &parameter, name)
	}
}

// TestLog says that a policy which fails with every query does not fill the log.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		p, err := New(prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&text, nil)))
		require.NoError(t, err)
		o := p.metrics.observer(p.log, "app", "localhost:1")
		gone, leave := context.WithCancel(t.Context())
		leave()
		o.done(gone, selectCall, time.Now(), invalid("nobody waits"))
		require.Empty(t, text.String(), "a caller who has left")
		for range 100 {
			o.done(t.Context(), selectCall, time.Now(), invalid("twice"))
		}
		o.done(t.Context(), combineCall, time.Now(), invalid("another call"))
		require.Equal(t, 2, strings.Count(text.String(), "custom policy failed"), text.String())
		time.Sleep(logEvery)
		o.done(t.Context(), selectCall, time.Now(), invalid("twice"))
		require.Contains(t, text.String(), "not_logged=99")
		require.Contains(t, text.String(), "application=app address=localhost:1 call=select reason=invalid error=twice")
	})
}

// TestRetain says that a connection goes with the last application that needs it.
func TestRetain(t *testing.T) {
	server := customtest.Start(t)
	p, err := New(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer p.Close()
	cfg := Config{Application: "one", Address: server.Address, Statistics: customtest.Statistics, Models: []string{"a"}, Priors: []float64{1}}
	one := p.Policy(cfg)
	cfg.Application = "two"
	p.Policy(cfg)
	s := &policy.State{Priors: []float64{1}, Statistics: []float64{0, 0}}
	_, err = one.Select(t.Context(), s, nil, nil)
	require.NoError(t, err)
	p.Retain(map[string]string{"two": server.Address})
	require.Len(t, p.conns, 1)
	p.Retain(nil)
	require.Empty(t, p.conns)
	// Someone still asks the application that is gone.
	choices, err := one.Select(t.Context(), s, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []policy.Choice{{Model: 0, Propensity: 1}}, choices)
}
