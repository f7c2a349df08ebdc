// SPDX-License-Identifier: Apache-2.0

package output

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/policy"
)

// What is written as JSON is read as the same.
func TestJSON(t *testing.T) {
	label := policy.Task{Kind: policy.Label}
	for name, test := range map[string]struct {
		spec  Spec
		value policy.Value
		want  any
	}{
		"integer":       {Spec{Task: label, DataType: clipperv1.DataType_DATA_TYPE_INT64}, policy.Integer(-7), -7.0},
		"large integer": {Spec{Task: label, DataType: clipperv1.DataType_DATA_TYPE_INT64}, policy.Integer(math.MaxInt64), "9223372036854775807"},
		"boolean":       {Spec{Task: label, DataType: clipperv1.DataType_DATA_TYPE_BOOL}, policy.Integer(1), true},
		"text":          {Spec{Task: label, DataType: clipperv1.DataType_DATA_TYPE_STRING}, policy.Text("7"), "7"},
		"number":        {Spec{Task: policy.Task{Kind: policy.Number, Max: 1}}, policy.Real(0.25), 0.25},
		"scores":        {Spec{Task: policy.Task{Kind: policy.Scores}}, policy.Vector([]float64{0.25, 0.75}), []any{0.25, 0.75}},
		"class":         {Spec{Task: policy.Task{Kind: policy.Scores}}, policy.TopClass(3), 3.0},
	} {
		t.Run(name, func(t *testing.T) {
			written := test.spec.JSON(test.value)
			require.Equal(t, test.want, written.AsInterface())
			read, err := test.spec.Prediction(written)
			require.NoError(t, err)
			require.Equal(t, test.value, read)
		})
	}
	spec := Spec{Task: label}
	require.Nil(t, spec.JSON(policy.Value{}))
	missing, err := spec.Prediction(nil)
	require.NoError(t, err)
	require.True(t, missing.Missing())
}
