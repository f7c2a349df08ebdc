// SPDX-License-Identifier: Apache-2.0

// Package oip measures what the Open Inference Protocol costs over HTTP with binary tensors of 784
// floats, an image of MNIST, beside a bare server that echoes the same bytes.
package oip

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	"github.com/clipper-serving/clipper/frontend/oip/rest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/inprocess"
)

const (
	floats  = 784
	callers = 64
	rounds  = 5
	window  = 2 * time.Second
	app     = "noop"
	path    = "/v2/models/" + app + "/infer"
	// lengthHeader says how many bytes of a body are JSON.
	lengthHeader = "Inference-Header-Content-Length"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "oip",
	Summary: "throughput of the Open Inference Protocol over HTTP with binary tensors beside a bare echo of the same bytes",
	Run:     run,
}

// PeerVariable is the environment variable that makes this program the peer: its value is the
// addresses of the bare echo and of the protocol without anything behind it.
const PeerVariable = "CLIPPER_BENCH_OIP_PEER"

// Peer serves until a signal comes.
func Peer(addresses string) error {
	bare, alone, _ := strings.Cut(addresses, " ")
	conn := inprocess.New(nil, nil)
	inference.RegisterGRPCInferenceServiceServer(conn, echo{})
	protocol, err := rest.New(rest.Config{MaxBody: 1 << 20, BodyTimeout: 30 * time.Second}, conn, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 2)
	for address, handler := range map[string]http.Handler{bare: http.HandlerFunc(echoBytes), alone: protocol} {
		server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		go func() { failed <- server.ListenAndServe() }()
		defer func() { _ = server.Close() }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// echoBytes is the least that a server can do with a body.
func echoBytes(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(lengthHeader, r.Header.Get(lengthHeader))
	_, _ = w.Write(body)
}

// echo answers with the inputs.
type echo struct {
	inference.UnimplementedGRPCInferenceServiceServer
}

// ModelInfer answers with the inputs.
func (echo) ModelInfer(_ context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	answer := &inference.ModelInferResponse{ModelName: q.ModelName, Id: q.Id, RawOutputContents: q.RawInputContents}
	for _, in := range q.Inputs {
		answer.Outputs = append(answer.Outputs, &inference.ModelInferResponse_InferOutputTensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape})
	}
	return answer, nil
}

var head = `{"parameters":{"binary_data_output":true},"inputs":[{"name":"input","shape":[1,` + strconv.Itoa(floats) +
	`],"datatype":"FP32","parameters":{"binary_data_size":` + strconv.Itoa(4*floats) + `}}]}`

// bodies makes bodies of which no two that are under way are equal, since equal inputs would be
// predicted once.
type bodies struct{ count atomic.Uint32 }

func (b *bodies) next() []byte {
	body := make([]byte, len(head)+4*floats)
	binary.LittleEndian.PutUint32(body[copy(body, head):], math.Float32bits(float32(b.count.Add(1)%(1<<20))))
	return body
}

type side struct {
	name string
	call func(context.Context) error
	runs []load.Measurement
}

func run(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binaries, err := system.Build(ctx, folder, log)
	if err != nil {
		return nil, err
	}
	bare, alone, stop, err := startPeer()
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	defer stop()
	clipper, err := system.StartClipper(binaries, false)
	if err != nil {
		return nil, err
	}
	defer clipper.Stop()
	err = clipper.Serve(ctx, app, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{binaries.Noop}}}},
		Cache:     &clipperv1.Cache{Disabled: true},
	}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
	})
	if err != nil {
		return nil, err
	}

	inputs := &bodies{}
	sides := []*side{
		{name: "bare net/http echo", call: infer(bare, inputs)},
		{name: "the protocol alone, echoing", call: infer(alone, inputs)},
		{name: "Clipper, one process", call: infer(clipper.QueryHTTP, inputs)},
	}
	// The sides take turns, so that a change of the machine's speed meets all of them.
	for round := range rounds {
		for _, s := range sides {
			_, _ = fmt.Fprintf(log, "round %d of %d: %s\n", round+1, rounds, s.name)
			m := load.Closed(ctx, callers, window, s.call)
			if m.Errors > 0 {
				return nil, fmt.Errorf("%s: %d errors, one of them: %w", s.name, m.Errors, m.FirstError)
			}
			s.runs = append(s.runs, m)
		}
	}

	r := &experiment.Result{
		Load: fmt.Sprintf("closed loop, %d callers with connections that stay open, %d floats a request as a binary tensor in a body of %d bytes, no two equal; no-op container, cache off; %d rounds of %v each in turn, medians; client, servers and container share the machine",
			callers, floats, len(inputs.next()), rounds, window),
		Columns: []string{"side", "callers", "calls/s", "p50 ms", "p99 ms"},
	}
	median := func(figure func(round int) float64) float64 {
		figures := make([]float64, rounds)
		for i := range figures {
			figures[i] = figure(i)
		}
		return experiment.Median(figures)
	}
	for _, s := range sides {
		r.Rows = append(r.Rows, []any{
			s.name, callers,
			median(func(i int) float64 { return s.runs[i].Throughput }),
			median(func(i int) float64 { return s.runs[i].P50.Seconds() * 1e3 }),
			median(func(i int) float64 { return s.runs[i].P99.Seconds() * 1e3 }),
		})
	}
	over := func(s *side) float64 {
		return median(func(i int) float64 { return s.runs[i].Throughput / sides[0].runs[i].Throughput })
	}
	r.Bars = []experiment.Bar{
		experiment.AtLeast("throughput of the protocol alone over the bare echo", over(sides[1]), "x", 0.7),
		experiment.AtLeast("throughput of Clipper over the bare echo", over(sides[2]), "x", 0.7),
	}
	return r, nil
}

// startPeer starts this program again as the peer and waits until it listens.
func startPeer() (bare, alone string, stop func(), err error) {
	if bare, err = system.FreeAddress(); err != nil {
		return "", "", nil, err
	}
	if alone, err = system.FreeAddress(); err != nil {
		return "", "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", "", nil, err
	}
	peer, err := system.Start([]string{PeerVariable + "=" + bare + " " + alone}, self)
	if err != nil {
		return "", "", nil, err
	}
	for _, address := range []string{bare, alone} {
		if err := system.AwaitListener(address); err != nil {
			peer.Stop()
			return "", "", nil, err
		}
	}
	return bare, alone, peer.Stop, nil
}

// infer returns a function that sends one request and requires an answer with a binary tensor.
func infer(address string, inputs *bodies) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}}
	length := strconv.Itoa(len(head))
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+path, bytes.NewReader(inputs.next()))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set(lengthHeader, length)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return err
		case response.StatusCode != http.StatusOK || response.Header.Get(lengthHeader) == "" || bytes.Contains(answer, []byte(`"is_default":true`)):
			return fmt.Errorf("status %d: %.200s", response.StatusCode, answer)
		}
		return nil
	}
}
