// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/gen/go/inference"
)

// sizes are the bytes of an element of each data type.
var sizes = map[string]int{
	"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}

// FuzzInfer sends any body with any declared length, plain or as if compressed. Whatever is not
// refused is JSON that encoding/json takes as well, and each input that was JSON has as many elements
// as its shape says. Answers are always well formed.
func FuzzInfer(f *testing.F) {
	const head = `{"id":"1","parameters":{"binary_data_output":true,"timeout":1},"inputs":[{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}],"outputs":[{"name":"x","parameters":{"binary_data":false}}]}`
	f.Add([]byte(head+"\x01\x00\x02\x00"), len(head), uint8(0))
	f.Add([]byte("\x01\x02\x03"), 0, uint8(0))
	for datatype := range sizes {
		f.Add([]byte(`{"inputs":[{"name":"x","datatype":"`+datatype+`","shape":[1,2],"data":[[1,2.0]]}]}`), -1, uint8(0))
	}
	f.Add([]byte(`{"inputs":[{"data":["a","\u00e9\ud83d\ude00"],"name":"x","datatype":"BYTES","shape":[2]}]}`), -1, uint8(0))
	f.Add([]byte(compress(f, "gzip", `{"inputs":[]}`)), -1, uint8(1))
	f.Add([]byte(compress(f, "deflate", strings.Repeat(" ", 1<<20))), -1, uint8(2))
	f.Add([]byte(strings.Repeat("[", 1000)), -1, uint8(0))
	f.Fuzz(func(t *testing.T, body []byte, length int, encoding uint8) {
		var got *inference.ModelInferRequest
		h := handler(t, &service{
			inputs: []*inference.ModelMetadataResponse_TensorMetadata{{Name: "x", Datatype: "INT8", Shape: []int64{-1, 3}}},
			infer: func(ctx context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
				got = q
				return echo(ctx, q)
			},
		})
		r := httptest.NewRequest(http.MethodPost, "/v2/models/m/infer", strings.NewReader(string(body)))
		if length >= 0 {
			r.Header.Set("Inference-Header-Content-Length", strconv.Itoa(length))
		}
		if name := [...]string{"", "gzip", "deflate"}[encoding%3]; name != "" {
			r.Header.Set("Content-Encoding", name)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		text := w.Body.Bytes()
		if n := w.Header().Get("Inference-Header-Content-Length"); n != "" {
			n, err := strconv.Atoi(n)
			require.NoError(t, err)
			text = text[:n]
		}
		require.True(t, json.Valid(text), "%q", text)
		if w.Code != http.StatusOK {
			require.Contains(t, []int{400, 413, 500}, w.Code)
			if w.Code == 500 {
				// The echo returns binary contents that nobody has checked.
				require.GreaterOrEqual(t, length, 1)
			}
			return
		}
		if length < 0 && encoding%3 == 0 {
			require.True(t, json.Valid(body), "%q", body)
			for i, in := range got.Inputs {
				n := 1
				for _, d := range in.Shape {
					n *= int(d)
				}
				if size := sizes[in.Datatype]; size > 0 {
					require.Len(t, got.RawInputContents[i], n*size)
				}
			}
		}
	})
}

// FuzzRoundTrip sends what an answer has as data back as data: the bytes must be the same.
func FuzzRoundTrip(f *testing.F) {
	for i := range uint8(13) {
		f.Add([]byte("\x00\x80\x01\x3f\xff\x7f\xfe\xff\x12\x34\x56\x78\x9a\xbc\xde\xf0"), i)
	}
	names := strings.Fields("UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 BF16 FP32 FP64 BOOL")
	f.Fuzz(func(t *testing.T, raw []byte, kind uint8) {
		datatype := names[int(kind)%len(names)]
		size := sizes[datatype]
		raw = raw[:len(raw)/size*size]
		if datatype == "BOOL" {
			for i := range raw {
				raw[i] &= 1
			}
		}
		var got *inference.ModelInferRequest
		h := handler(t, &service{infer: func(ctx context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
			got = q
			return echo(ctx, q)
		}})
		head := `{"inputs":[{"name":"x","datatype":"` + datatype + `","shape":[` + strconv.Itoa(len(raw)/size) + `],"parameters":{"binary_data_size":` + strconv.Itoa(len(raw)) + `}}]}`
		w := call(h, "POST", "/v2/models/m/infer", head+string(raw), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, string(raw), string(got.RawInputContents[0]))
		_, outputs, _ := strings.Cut(w.Body.String(), `"outputs":`)
		if strings.Contains(outputs, "NaN") || strings.Contains(outputs, "Infinity") {
			return // They can be answered, not asked.
		}
		w = call(h, "POST", "/v2/models/m/infer", `{"inputs":`+outputs)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, string(raw), string(got.RawInputContents[0]), "%s", outputs)
	})
}
