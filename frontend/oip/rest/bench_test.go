// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// discard takes an answer and keeps its status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkInfer is the REST side alone: from the bytes of a request to those of its answer, over a
// connection in the process to a service that gives inputs back.
func BenchmarkInfer(b *testing.B) {
	const floats = 784
	shape := `"name":"input","shape":[1,` + strconv.Itoa(floats) + `],"datatype":"FP32"`
	head := `{"parameters":{"binary_data_output":true},"inputs":[{` + shape + `,"parameters":{"binary_data_size":` + strconv.Itoa(4*floats) + `}}]}`
	for name, tt := range map[string]struct {
		body   string
		length int
	}{
		"binary": {head + strings.Repeat("\x00\x00\x80\x3f", floats), len(head)},
		"JSON":   {`{"inputs":[{` + shape + `,"data":[0.50390625` + strings.Repeat(",0.50390625", floats-1) + `]}]}`, -1},
	} {
		b.Run(name, func(b *testing.B) {
			h := handler(b, &service{})
			b.ReportAllocs()
			w := &discard{header: http.Header{}}
			body := bytes.NewReader([]byte(tt.body))
			r := httptest.NewRequest(http.MethodPost, "/v2/models/m/infer", body)
			if tt.length >= 0 {
				r.Header.Set("Inference-Header-Content-Length", strconv.Itoa(tt.length))
			}
			for b.Loop() {
				body.Reset([]byte(tt.body))
				clear(w.header)
				h.ServeHTTP(w, r)
				if w.status != 0 {
					b.Fatal(w.status)
				}
			}
		})
	}
}
