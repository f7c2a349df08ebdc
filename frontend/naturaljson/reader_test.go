// SPDX-License-Identifier: Apache-2.0

package naturaljson_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestReader(t *testing.T) {
	r := naturaljson.NewReader([]byte(` {"a\u0062" : "té\n", "n":[-1.5e3, true,null] , "skip":{"x":[{}]}} `))
	var keys []string
	err := r.Object(func(key []byte) error {
		keys = append(keys, string(key))
		switch len(keys) {
		case 1:
			text, err := r.Text()
			require.Equal(t, "té\n", text)
			return err
		case 2:
			return r.List(func(i int) error {
				switch i {
				case 0:
					number, err := r.Number()
					require.Equal(t, "-1.5e3", string(number))
					return err
				case 1:
					require.False(t, r.Word("false"))
					require.True(t, r.Word("true"))
				case 2:
					require.True(t, r.Word("null"))
				}
				return nil
			})
		}
		return r.Skip()
	})
	require.NoError(t, err)
	require.NoError(t, r.End())
	require.Equal(t, []string{"ab", "n", "skip"}, keys)
}

// Elements that are of no type, or of no place in the lists, are refused with the place.
func TestReader_elements(t *testing.T) {
	for _, tt := range []struct {
		text  string
		shape []int64
		want  string
	}{
		{"[1,2]", []int64{2}, ""},
		{"[[1],[2]]", []int64{2, 1}, ""},
		{"[1,2]", []int64{2, 1}, ""},
		{"[[1],[2,3]]", []int64{2, 1}, "[1]: has more than 1 elements, expected 1 by shape [2, 1] (at byte 8)"},
		{"[[1],[-129]]", []int64{2, 1}, "[1][0]: -129 is out of the range of int8 (at byte 6)"},
		{"[1,2", []int64{2}, "[2]: the JSON text ends too early, expected ',' or ']' (at byte 4)"},
		{"1", []int64{1}, "is a number, expected a list (at byte 0)"},
		{"[1]", []int64{-1}, "shape [-1] is not allowed: at most 32 dimensions, none negative, and 2^31 elements (at byte 0)"},
	} {
		r := naturaljson.NewReader([]byte(tt.text))
		b, err := r.Elements(nil, clipperv1.DataType_DATA_TYPE_INT8, tt.shape)
		if tt.want == "" {
			require.NoError(t, err)
			require.Equal(t, []byte{1, 2}, b)
			continue
		}
		var e *naturaljson.Error
		require.ErrorAs(t, err, &e, tt.text)
		require.Equal(t, tt.want, err.Error())
	}
}
