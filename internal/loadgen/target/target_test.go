// SPDX-License-Identifier: Apache-2.0

package target_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/loadgen"
	"github.com/clipper-serving/clipper/internal/loadgen/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a fake of every protocol. The context of a query says what it does: "default" answers so, "refuse"
// refuses, "hang" never answers, "break" breaks the stream.
type server struct {
	clipperv1.UnimplementedQueryServiceServer
	clipperv1.UnimplementedFeedbackServiceServer
	inference.UnimplementedGRPCInferenceServiceServer
	learned atomic.Int64
}

var errRefused = apierror.New(codes.ResourceExhausted, clipperv1.ErrorReason_ERROR_REASON_OVERLOADED, "", "too much to do")

func (s *server) Query(ctx context.Context, q *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	switch q.GetContext() {
	case "default":
		return &clipperv1.QueryResponse{IsDefault: true, DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, FeedbackId: "id"}, nil
	case "refuse":
		return nil, errRefused
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "everything":
		if q.GetPriority() != 3 || q.GetTimeout().AsDuration() != 250*time.Millisecond {
			return nil, status.Error(codes.InvalidArgument, "parameters got lost")
		}
	}
	return &clipperv1.QueryResponse{FeedbackId: "id", Predictions: []*clipperv1.ModelPrediction{{Cached: true}}}, nil
}

func (s *server) QueryStream(stream clipperv1.QueryService_QueryStreamServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch request.GetQuery().GetContext() {
		case "hang":
			continue
		case "break":
			return status.Error(codes.Unavailable, "going away")
		}
		result := &clipperv1.QueryResult{}
		if answer, err := s.Query(stream.Context(), request.GetQuery()); err != nil {
			result.Result = &clipperv1.QueryResult_Error{Error: apierror.ToProto(err)}
		} else {
			result.Result = &clipperv1.QueryResult_Response{Response: answer}
		}
		if err := stream.Send(&clipperv1.QueryStreamResponse{Sequence: request.GetSequence(), Result: result}); err != nil {
			return err
		}
	}
}

func (s *server) Feedback(_ context.Context, f *clipperv1.FeedbackRequest) (*clipperv1.FeedbackResponse, error) {
	if f.GetFeedbackId() != "id" || f.GetTruth().GetNumberValue() != 7 {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, "feedback_id", "unknown")
	}
	s.learned.Add(1)
	return &clipperv1.FeedbackResponse{}, nil
}

var metadata = []*inference.ModelMetadataResponse_TensorMetadata{{Name: "x", Datatype: "FP32", Shape: []int64{-1, 2}}}

func (s *server) ModelMetadata(context.Context, *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	return &inference.ModelMetadataResponse{Inputs: metadata}, nil
}

func (s *server) ModelInfer(ctx context.Context, r *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	in := r.GetInputs()[0]
	if in.GetName() != "x" || in.GetDatatype() != "FP32" || len(in.GetShape()) != 2 || in.GetShape()[0] != 1 || len(r.GetRawInputContents()[0]) != 8 {
		return nil, status.Error(codes.InvalidArgument, "another input")
	}
	q := &clipperv1.QueryRequest{Context: r.GetParameters()["context"].GetStringParam()}
	if q.GetContext() == "everything" && (r.GetParameters()["priority"].GetInt64Param() != 3 || r.GetParameters()["timeout"].GetInt64Param() != 250_000) {
		return nil, status.Error(codes.InvalidArgument, "parameters got lost")
	}
	if q.GetContext() == "everything" {
		q.Context = ""
	}
	answer, err := s.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	text := func(v string) *inference.InferParameter {
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: v}}
	}
	parameters := map[string]*inference.InferParameter{"feedback_id": text("id")}
	if answer.GetIsDefault() {
		parameters["is_default"] = &inference.InferParameter{ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: true}}
		parameters["default_reason"] = text(answer.GetDefaultReason().String())
	}
	return &inference.ModelInferResponse{Parameters: parameters}, nil
}

// ServeHTTP is the same over HTTP.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") != "secret" {
		http.Error(w, "no key", http.StatusUnauthorized)
		return
	}
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(map[string]any{"inputs": metadata})
		return
	}
	if n := r.Header.Get("Inference-Header-Content-Length"); n != "" {
		if !strings.HasSuffix(string(body), "\x00\x00\x80\x3f\x00\x00\x00\x40") {
			http.Error(w, "no tensor", http.StatusBadRequest)
			return
		}
		body = body[:len(body)-8]
	}
	var q struct {
		FeedbackID string `json:"feedback_id"`
		Context    string
		Priority   int
		Timeout    any
		Parameters *struct {
			Context  string
			Priority int
			Timeout  any
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, `{"error":"not JSON: `+string(body)+`"}`, http.StatusBadRequest)
		return
	}
	oip, timeout := strings.HasPrefix(r.URL.Path, "/v2/"), any("0.250000000s")
	if q.Parameters != nil {
		q.Context, q.Priority, q.Timeout, timeout = q.Parameters.Context, q.Parameters.Priority, q.Parameters.Timeout, 250_000.0
	}
	switch {
	case q.FeedbackID != "":
		if q.FeedbackID != "id" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"type":"urn:clipper:error:FEEDBACK_ID_INVALID","detail":"unknown","reason":"FEEDBACK_ID_INVALID"}`)
			return
		}
		s.learned.Add(1)
		_, _ = io.WriteString(w, "{}")
	case q.Context == "refuse" && oip:
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error":"too much to do"}`)
	case q.Context == "refuse":
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"detail":"too much to do","reason":"OVERLOADED"}`)
	case q.Context == "hang":
		<-r.Context().Done()
	case q.Context == "everything" && (q.Priority != 3 || q.Timeout != timeout):
		http.Error(w, "parameters got lost", http.StatusBadRequest)
	case oip && q.Context == "default":
		_, _ = io.WriteString(w, `{"parameters":{"is_default":true,"default_reason":"DEFAULT_REASON_DEADLINE","feedback_id":"id"}}`)
	case oip:
		text := `{"parameters":{"feedback_id":"id"}}`
		w.Header().Set("Inference-Header-Content-Length", "35")
		_, _ = io.WriteString(w, text+"\x00\x01\x02")
	case q.Context == "default":
		_, _ = io.WriteString(w, `{"is_default":true,"default_reason":"DEFAULT_REASON_DEADLINE","feedback_id":"id"}`)
	default:
		_, _ = io.WriteString(w, `{"output":1,"feedback_id":"id","predictions":[{"cached":true}]}`)
	}
}

// start returns a client of each protocol.
func start(t *testing.T) (*server, map[string]target.Client) {
	t.Helper()
	s := &server{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	clipperv1.RegisterQueryServiceServer(g, s)
	clipperv1.RegisterFeedbackServiceServer(g, s)
	inference.RegisterGRPCInferenceServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	h := httptest.NewServer(s)
	over := target.HTTP{Address: strings.TrimPrefix(h.URL, "http://"), Headers: map[string]string{"X-Api-Key": "secret"}}
	conns := target.NewConns(conn, conn)
	clients := map[string]target.Client{
		"grpc": target.NewGRPC(conns, "app"), "stream": target.NewStream(conns, "app"), "rest": target.NewREST(over, "app"),
		"oip-grpc": target.NewOIPGRPC(conns, "app", ""), "oip-rest": target.NewOIPREST(over, "app", "", false), "oip-binary": target.NewOIPREST(over, "app", "1", true),
	}
	t.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
		require.NoError(t, conn.Close())
		h.Close()
		g.Stop()
		require.NoError(t, <-done)
	})
	return s, clients
}

// TestClients holds every protocol to the same.
func TestClients(t *testing.T) {
	s, clients := start(t)
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			specs, err := c.Signature(t.Context())
			require.NoError(t, err)
			require.Len(t, specs, 1)
			require.Equal(t, []int64{2}, specs[0].Shape)
			require.Equal(t, clipperv1.DataType_DATA_TYPE_FLOAT32, specs[0].DataType)

			for _, input := range []target.Input{
				{JSON: []byte("[1, 2]")},
				{Tensors: []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{2}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}}}},
			} {
				ask, err := c.Prepare(input)
				require.NoError(t, err)
				answer, err := ask(t.Context(), target.Params{})
				require.NoError(t, err)
				require.Equal(t, loadgen.Answer{FeedbackID: "id", Cached: !strings.HasPrefix(name, "oip")}, answer)
				_, err = ask(t.Context(), target.Params{Context: "everything", Priority: 3, Timeout: 250 * time.Millisecond})
				require.NoError(t, err)
				answer, err = ask(t.Context(), target.Params{Context: "default"})
				require.NoError(t, err)
				require.Equal(t, loadgen.Answer{FeedbackID: "id", Default: "DEADLINE"}, answer)

				f := (*loadgen.Failure)(nil)
				_, err = ask(t.Context(), target.Params{Context: "refuse"})
				require.ErrorAs(t, err, &f)
				want := "OVERLOADED"
				if name == "oip-rest" || name == "oip-binary" {
					want = "TOO_MANY_REQUESTS" // The protocol's errors have a text and no more.
				}
				require.Equal(t, loadgen.Failure{Reason: want, Message: "too much to do"}, *f)

				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(10*time.Millisecond, cancel)
				_, err = ask(ctx, target.Params{Context: "hang"})
				require.ErrorAs(t, err, &f)
			}
			before := s.learned.Load()
			require.NoError(t, c.Feedback(t.Context(), "id", json.RawMessage("7")))
			require.Equal(t, before+1, s.learned.Load())
			f := (*loadgen.Failure)(nil)
			require.ErrorAs(t, c.Feedback(t.Context(), "another", json.RawMessage("7")), &f)
			require.Equal(t, loadgen.Failure{Reason: "FEEDBACK_ID_INVALID", Message: "unknown"}, *f)
		})
	}
	for _, name := range []string{"oip-grpc", "oip-rest", "oip-binary"} {
		_, err := clients[name].Prepare(target.Input{JSON: []byte("[1, 2, 3]")})
		require.ErrorContains(t, err, "shape [2]", "the signature reads the JSON")
	}
}

// A stream that breaks fails those who wait, and the next query opens another.
func TestStream_breaks(t *testing.T) {
	_, clients := start(t)
	ask, err := clients["stream"].Prepare(target.Input{JSON: []byte("[1, 2]")})
	require.NoError(t, err)
	for range 6 { // On both connections.
		_, err := ask(t.Context(), target.Params{Context: "break"})
		f := (*loadgen.Failure)(nil)
		require.ErrorAs(t, err, &f)
		require.Equal(t, "UNAVAILABLE", f.Reason)
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			_, err := ask(t.Context(), target.Params{})
			require.NoError(c, err)
		}, 10*time.Second, time.Millisecond)
	}
}
