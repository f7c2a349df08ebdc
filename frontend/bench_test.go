// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// constant answers every query with the same label.
func constant(apps ...*clipperv1.Application) *fakeSelector {
	selector := newSelector(apps...)
	response := &clipperv1.QueryResponse{Outputs: one(label(7)), Confidence: 1, FeedbackId: strings.Repeat("f", 150)}
	selector.query = func(context.Context, string, string, *tensor.Input) (*clipperv1.QueryResponse, error) {
		return response, nil
	}
	return selector
}

func wide(n int64) *clipperv1.Application {
	app := digits()
	app.Inputs[0].Shape = []int64{n}
	return app
}

// numbersJSON returns a list of n numbers with the digits that pixels of images have.
func numbersJSON(n int) string {
	values := make([]float64, n)
	for i := range values {
		values[i] = float64(i*37%17) / 16
	}
	text, err := json.Marshal(values)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func unlimited(c *frontend.Config) { c.MaxElements, c.MaxInput = 1<<20, 1<<20 }

// BenchmarkHandler is the edge alone: from the bytes of a request to the bytes of its answer.
func BenchmarkHandler(b *testing.B) {
	for name, n := range map[string]int{"64 floats": 64, "784 floats": 784} {
		b.Run(name, func(b *testing.B) {
			query := edgeQuery(b, n)
			b.ReportAllocs()
			for b.Loop() {
				query()
			}
		})
	}
}

// BenchmarkREST compares a query with a bare server that decodes and encodes the same JSON.
func BenchmarkREST(b *testing.B) {
	const n = 64
	body := `{"input":` + numbersJSON(n) + `}`
	run := func(b *testing.B, h http.Handler) {
		server := httptest.NewServer(h)
		defer server.Close()
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		defer client.CloseIdleConnections()
		b.SetParallelism(16)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				res, err := client.Post(server.URL+"/v1/applications/digits/query", "application/json", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					b.Error(res.Status)
				}
			}
		})
	}
	b.Run("query", func(b *testing.B) {
		f := start(b, constant(wide(n)), unlimited)
		run(b, f.query)
	})
	b.Run("bare echo", func(b *testing.B) {
		run(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var v struct {
				Input []float64 `json:"input"`
			}
			if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		}))
	})
}

// echoServer answers every query at once.
type echoServer struct {
	clipperv1.UnimplementedQueryServiceServer
	response *clipperv1.QueryResponse
}

func (e *echoServer) Query(context.Context, *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	return e.response, nil
}

// BenchmarkGRPC compares a query with a bare unary echo over the same kind of connection.
func BenchmarkGRPC(b *testing.B) {
	const n = 64
	req := &clipperv1.QueryRequest{Application: "digits", Inputs: one(vector(make([]float32, n)...))}
	run := func(b *testing.B, register func(grpc.ServiceRegistrar)) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		server := grpc.NewServer()
		register(server)
		go server.Serve(listener)
		defer server.Stop()
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(b, err)
		defer func() { _ = conn.Close() }()
		client := clipperv1.NewQueryServiceClient(conn)
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := client.Query(context.Background(), req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.Run("query", func(b *testing.B) {
		f := start(b, constant(wide(n)), unlimited)
		run(b, f.service.RegisterQuery)
	})
	b.Run("bare echo", func(b *testing.B) {
		run(b, func(r grpc.ServiceRegistrar) {
			clipperv1.RegisterQueryServiceServer(r, &echoServer{response: &clipperv1.QueryResponse{Outputs: one(label(7)), Confidence: 1, FeedbackId: strings.Repeat("f", 150)}})
		})
	})
}
