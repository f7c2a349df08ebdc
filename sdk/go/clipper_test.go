// SPDX-License-Identifier: Apache-2.0

package clipper_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	clipper "github.com/clipper-serving/clipper/sdk/go"
)

func TestTensors_comeBack(t *testing.T) {
	t.Run("bool", func(t *testing.T) { comesBack(t, []bool{true, false}) })
	t.Run("uint8", func(t *testing.T) { comesBack(t, []uint8{0, math.MaxUint8}) })
	t.Run("uint16", func(t *testing.T) { comesBack(t, []uint16{0, math.MaxUint16}) })
	t.Run("uint32", func(t *testing.T) { comesBack(t, []uint32{0, math.MaxUint32}) })
	t.Run("uint64", func(t *testing.T) { comesBack(t, []uint64{0, math.MaxUint64}) })
	t.Run("int8", func(t *testing.T) { comesBack(t, []int8{math.MinInt8, math.MaxInt8}) })
	t.Run("int16", func(t *testing.T) { comesBack(t, []int16{math.MinInt16, math.MaxInt16}) })
	t.Run("int32", func(t *testing.T) { comesBack(t, []int32{math.MinInt32, math.MaxInt32}) })
	t.Run("int64", func(t *testing.T) { comesBack(t, []int64{math.MinInt64, math.MaxInt64}) })
	t.Run("float32", func(t *testing.T) { comesBack(t, []float32{math.SmallestNonzeroFloat32, math.MaxFloat32}) })
	t.Run("float64", func(t *testing.T) { comesBack(t, []float64{math.SmallestNonzeroFloat64, math.MaxFloat64}) })
	t.Run("string", func(t *testing.T) { comesBack(t, []string{"", "é\x00"}) })
	t.Run("bytes", func(t *testing.T) { comesBack(t, [][]byte{{0, 0xff}, {}}) })
}

func comesBack[T clipper.Element](t *testing.T, elements []T) {
	tensor := clipper.NewTensor(elements)
	got, err := clipper.Values[T](tensor)
	check(t, err)
	if !reflect.DeepEqual(got, elements) || !slices.Equal(tensor.Shape, []int64{2}) {
		t.Errorf("have %v of shape %v, want %v", got, tensor.Shape, elements)
	}
	one, err := clipper.Value[T](clipper.Scalar(elements[0]))
	check(t, err)
	if !reflect.DeepEqual(one, elements[0]) {
		t.Errorf("have %v, want %v", one, elements[0])
	}
}

// TestFloat16 goes through all of them: each comes back as it is, and what lies between two goes to the even one.
func TestFloat16(t *testing.T) {
	all := make([]byte, 0, 2<<16)
	for bits := range 1 << 16 {
		all = append(all, byte(bits), byte(bits>>8))
	}
	wide, err := clipper.Values[float32](&clipper.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT16, Shape: []int64{1 << 16}, Data: all})
	check(t, err)
	back := clipper.Float16(wide).Data
	for bits, x := range wide {
		if got := int(back[2*bits]) | int(back[2*bits+1])<<8; got != bits && x == x {
			t.Fatalf("%#x is %v, which became %#x", bits, x, got)
		}
	}
	for bits := range 0x7bff { // Positive and finite, with a next one.
		middle := (wide[bits] + wide[bits+1]) / 2
		got := clipper.Float16([]float32{middle}).Data
		if want := bits + bits&1; int(got[0])|int(got[1])<<8 != want {
			t.Fatalf("%v became %x, want %#x", middle, got, want)
		}
	}
	inf := float32(math.Inf(1))
	for x, want := range map[float32]float32{65519: 65504, 65520: inf, -1e9: -inf, inf: inf} {
		got, err := clipper.Value[float32](clipper.Float16([]float32{x}))
		check(t, err)
		if got != want {
			t.Errorf("%v became %v, want %v", x, got, want)
		}
	}
}

func TestBFloat16(t *testing.T) {
	nan := float32(math.NaN())
	got, err := clipper.Values[float32](clipper.BFloat16([]float32{1, 1 + 1./256, 1 + 3./256, math.MaxFloat32, nan}))
	check(t, err)
	if want := []float32{1, 1, 1 + 1./64, float32(math.Inf(1))}; !slices.Equal(got[:4], want) || got[4] == got[4] {
		t.Errorf("have %v, want %v and no number", got, want)
	}
}

func TestValues_refuses(t *testing.T) {
	for name, read := range map[string]func() error{
		"another type": func() error { _, err := clipper.Values[int64](clipper.Scalar(1.5)); return err },
		"too few bytes": func() error {
			_, err := clipper.Values[int64](&clipper.Tensor{DataType: clipperv1.DataType_DATA_TYPE_INT64, Shape: []int64{2}, Data: make([]byte, 8)})
			return err
		},
		"a huge shape": func() error {
			_, err := clipper.Values[float32](&clipper.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT16, Shape: []int64{1 << 40}})
			return err
		},
		"too few strings": func() error {
			_, err := clipper.Values[string](&clipper.Tensor{DataType: clipperv1.DataType_DATA_TYPE_STRING, Shape: []int64{2}})
			return err
		},
		"no tensor":     func() error { _, err := clipper.Values[float64](nil); return err },
		"not one":       func() error { _, err := clipper.Value[int64](clipper.NewTensor([]int64{1, 2})); return err },
		"ragged matrix": func() error { _, err := clipper.Matrix([][]int64{{1, 2}, {3}}); return err },
		"empty matrix":  func() error { _, err := clipper.Matrix([][]int64{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if read() == nil {
				t.Error("want an error")
			}
		})
	}
}

func TestNew_refuses(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	check(t, os.WriteFile(garbage, []byte("garbage"), 0o600))
	for name, c := range map[string]struct {
		cfg  clipper.Config
		says string
	}{
		"a key for all to read":       {clipper.Config{Address: "clipper:1347", APIKey: "secret"}, "without TLS"},
		"a key for all to read there": {clipper.Config{AdminAddress: "10.0.0.1:1348", APIKey: "secret"}, "10.0.0.1:1348 without TLS"},
		"no authorities":              {clipper.Config{CAFile: "/no/such/file"}, "CAFile"},
		"no certificate":              {clipper.Config{CAFile: garbage}, "no certificate"},
		"half a pair":                 {clipper.Config{CertFile: garbage}, "CertFile and KeyFile"},
		"a negative timeout":          {clipper.Config{Timeout: -1}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clipper.New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("have %v, want %q", err, c.says)
			}
		})
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/clipper.sock"} {
		client, err := clipper.New(clipper.Config{Address: address, APIKey: "secret"})
		check(t, err)
		check(t, client.Close())
	}
}

// fake is a server whose queries a test answers.
type fake struct {
	clipperv1.UnimplementedQueryServiceServer
	query  func(context.Context, *clipper.QueryRequest) (*clipper.QueryResponse, error)
	stream func(grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error
}

func (f fake) Query(ctx context.Context, req *clipper.QueryRequest) (*clipper.QueryResponse, error) {
	return f.query(ctx, req)
}

func (f fake) QueryStream(s grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error {
	return f.stream(s)
}

func (f fake) connect(t *testing.T, cfg clipper.Config) *clipper.Client {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	server := grpc.NewServer()
	clipperv1.RegisterQueryServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	cfg.Address = listener.Addr().String()
	client, err := clipper.New(cfg)
	check(t, err)
	t.Cleanup(func() { check(t, client.Close()) })
	return client
}

func TestDeadlines(t *testing.T) {
	left := make(chan time.Duration, 1)
	client := fake{query: func(ctx context.Context, _ *clipper.QueryRequest) (*clipper.QueryResponse, error) {
		end, _ := ctx.Deadline()
		left <- time.Until(end)
		return &clipper.QueryResponse{}, nil
	}}.connect(t, clipper.Config{Timeout: time.Hour})
	bounded, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
	defer cancel()
	for name, c := range map[string]struct {
		ctx         context.Context
		timeout     *durationpb.Duration
		least, most time.Duration
	}{
		"the client's":  {t.Context(), nil, 50 * time.Minute, time.Hour},
		"the query's":   {t.Context(), durationpb.New(2 * time.Hour), 110 * time.Minute, 2*time.Hour + time.Second},
		"the context's": {bounded, durationpb.New(2 * time.Hour), 9 * time.Hour, 10 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.Query(c.ctx, &clipper.QueryRequest{Timeout: c.timeout})
			check(t, err)
			if d := <-left; d < c.least || d > c.most {
				t.Errorf("the call has %v left, want %v to %v", d, c.least, c.most)
			}
		})
	}
}

func TestError(t *testing.T) {
	client := fake{query: func(ctx context.Context, req *clipper.QueryRequest) (*clipper.QueryResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}.connect(t, clipper.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := client.Query(ctx, &clipper.QueryRequest{})
	wrapped := fmt.Errorf("ask: %w", err)
	for _, target := range []error{clipper.ReasonDeadline, context.DeadlineExceeded} {
		if !errors.Is(wrapped, target) {
			t.Errorf("%v is not %v", err, target)
		}
	}
	if errors.Is(wrapped, clipper.ReasonOverloaded) || errors.Is(wrapped, context.Canceled) || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v is more than its deadline", err)
	}
	if clipper.ItemError(nil) != nil {
		t.Error("no error is none")
	}
}

func TestAttempts(t *testing.T) {
	var calls, seen atomic.Int32
	client := fake{query: func(context.Context, *clipper.QueryRequest) (*clipper.QueryResponse, error) {
		calls.Add(1)
		return nil, status.Error(codes.Unavailable, "not now")
	}}.connect(t, clipper.Config{Attempts: 2, DialOptions: []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			seen.Add(1)
			return invoke(ctx, method, req, resp, conn, opts...)
		}),
	}})
	_, err := client.Query(t.Context(), &clipper.QueryRequest{})
	if !errors.Is(err, clipper.ReasonUnavailable) || calls.Load() != 2 || seen.Load() != 2 {
		t.Errorf("%v after %d calls, of which interceptors saw %d; want 2", err, calls.Load(), seen.Load())
	}
}

func TestStream(t *testing.T) {
	// Answers come in pairs, the later question first; the third ends the stream.
	client := fake{stream: func(s grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error {
		first, _ := s.Recv()
		second, _ := s.Recv()
		for _, req := range []*clipperv1.QueryStreamRequest{second, first, {Sequence: 99}} {
			_ = s.Send(&clipperv1.QueryStreamResponse{Sequence: req.GetSequence(), Result: &clipperv1.QueryResult{
				Result: &clipperv1.QueryResult_Response{Response: &clipper.QueryResponse{Id: req.GetQuery().GetId()}},
			}})
		}
		_, _ = s.Recv()
		return nil
	}}.connect(t, clipper.Config{})
	s, err := client.NewStream(t.Context())
	check(t, err)
	defer s.Close()
	done := make(chan string)
	for _, id := range []string{"a", "b"} {
		go func() {
			answer, err := s.Query(context.Background(), &clipper.QueryRequest{Id: id})
			done <- fmt.Sprint(id, answer.GetId(), err)
		}()
	}
	got := []string{<-done, <-done}
	slices.Sort(got)
	if want := []string{"aa<nil>", "bb<nil>"}; !slices.Equal(got, want) {
		t.Errorf("have %v, want %v", got, want)
	}
	for range 2 { // The one that ends it, and one after the end.
		if _, err := s.Query(t.Context(), &clipper.QueryRequest{}); !errors.Is(err, clipper.ReasonUnavailable) && status.Code(err) != codes.Unavailable {
			t.Errorf("have %v, want that the stream has ended", err)
		}
	}
}

// models is a model service whose version goes through states.
type models struct {
	clipperv1.UnimplementedModelServiceServer
	states []clipperv1.ModelState
	asked  int
}

func (m *models) DeployModel(_ context.Context, req *clipper.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	if req.GetVersion().GetVersion() == "" {
		return nil, status.Error(codes.InvalidArgument, "a version is missing")
	}
	return &clipperv1.DeployModelResponse{Version: req.Version}, nil
}

func (m *models) GetModelVersion(context.Context, *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	state := m.states[min(m.asked, len(m.states)-1)]
	m.asked++
	return &clipperv1.GetModelVersionResponse{Version: &clipper.ModelVersion{State: state, StateMessage: "because"}}, nil
}

func (m *models) ListModels(_ context.Context, req *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	if req.GetPageToken() != "" {
		return nil, status.Error(codes.Internal, "the second page is lost")
	}
	return &clipperv1.ListModelsResponse{Models: []*clipper.Model{{Name: "a"}, {Name: "b"}}, NextPageToken: "2"}, nil
}

func (m *models) connect(t *testing.T) *clipper.Client {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	server := grpc.NewServer()
	clipperv1.RegisterModelServiceServer(server, m)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := clipper.New(clipper.Config{AdminAddress: listener.Addr().String()})
	check(t, err)
	t.Cleanup(func() { check(t, client.Close()) })
	return client
}

func TestDeploy(t *testing.T) {
	const starting, ready, failed = clipperv1.ModelState_MODEL_STATE_STARTING, clipperv1.ModelState_MODEL_STATE_READY, clipperv1.ModelState_MODEL_STATE_FAILED
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		version string
		states  []clipperv1.ModelState
		says    string
	}{
		"becomes ready":  {t.Context(), "1", []clipperv1.ModelState{starting, starting, ready}, ""},
		"cannot serve":   {t.Context(), "1", []clipperv1.ModelState{starting, failed}, "m 1 cannot serve: because"},
		"is refused":     {t.Context(), "", []clipperv1.ModelState{ready}, "a version is missing"},
		"takes too long": {short, "1", []clipperv1.ModelState{starting}, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			client := (&models{states: c.states}).connect(t)
			v, err := client.Deploy(c.ctx, &clipper.DeployModelRequest{Version: &clipper.ModelVersion{Model: "m", Version: c.version}})
			if c.says == "" {
				check(t, err)
				if v.State != ready {
					t.Errorf("it is %v", v.State)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("have %v, want %q", err, c.says)
			}
		})
	}
}

func TestModels_endWithTheError(t *testing.T) {
	client := (&models{}).connect(t)
	var names []string
	var last error
	for m, err := range client.Models(t.Context(), 2) {
		names, last = append(names, m.GetName()), err
	}
	if !slices.Equal(names, []string{"a", "b", ""}) || status.Code(last) != codes.Internal {
		t.Errorf("have %q and %v", names, last)
	}
	for range client.Models(t.Context(), 2) { // May be left.
		break
	}
}

func TestReasons_areAll(t *testing.T) {
	source, err := os.ReadFile("error.go")
	check(t, err)
	for value, name := range clipperv1.ErrorReason_name {
		if constant := `= "` + strings.TrimPrefix(name, "ERROR_REASON_") + `"`; value != 0 && !strings.Contains(string(source), constant) {
			t.Errorf("no constant of the type Reason is %s", constant)
		}
	}
}
