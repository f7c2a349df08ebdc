// SPDX-License-Identifier: Apache-2.0

package naturaljson_test

import (
	"encoding/binary"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// A float32 is the one that strconv finds, also where the number lies on or beside the point between
// two of them, where rounding twice would go wrong.
func TestDecode_float32AsStrconv(t *testing.T) {
	specs := []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}}}
	same := func(t rapid.TB, number string) {
		want, err := strconv.ParseFloat(number, 32)
		got, err2 := naturaljson.Decode([]byte("["+number+"]"), specs, 1)
		require.Equal(t, err == nil, err2 == nil, number)
		if err == nil {
			require.Equal(t, math.Float32bits(float32(want)), binary.LittleEndian.Uint32(got[0].GetData()), number)
		}
	}
	for _, number := range []string{"16777217", "16777217.0000001", "16777216.9999999", "1e-45", "7e-46", "1.17549428e-38", "3.4028235e38", "3.4028236e38", "0.1", "-0", "123456789012345e22"} {
		same(t, number)
	}
	rapid.Check(t, func(t *rapid.T) {
		low := math.Abs(float64(rapid.Float32().Draw(t, "float")))
		between := (low + float64(math.Nextafter32(float32(low), math.MaxFloat32))) / 2
		same(t, strconv.FormatFloat(between, 'e', rapid.IntRange(5, 17).Draw(t, "digits"), 64))
	})
}
