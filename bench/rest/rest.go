// SPDX-License-Identifier: Apache-2.0

// Package rest measures what a query of a realistic size costs over REST: 784 floats, an image of
// MNIST, beside a bare server that only decodes the same JSON.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	floats  = 784
	callers = 64
	rounds  = 5
	window  = 2 * time.Second
	app     = "noop"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "rest",
	Summary: "throughput of REST queries of 784 floats beside a bare net/http server that only decodes the same JSON",
	Run:     run,
}

// PeerVariable is the environment variable that makes this program the bare server: its value is
// the address to listen on. It is a process of its own, as Clipper is.
const PeerVariable = "CLIPPER_BENCH_REST_PEER"

// Peer serves until a signal comes.
func Peer(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(decode), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

// decode is the least that a server can do which looks at a query at all.
func decode(w http.ResponseWriter, r *http.Request) {
	var query struct {
		Input []float32 `json:"input"`
	}
	if err := json.NewDecoder(r.Body).Decode(&query); err != nil || len(query.Input) != floats {
		http.Error(w, "not a query", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"output":0}`)
}

// bodies makes bodies of which no two are equal, since equal inputs would be predicted once.
type bodies struct {
	count atomic.Uint32
	rest  []byte
}

// newBodies draws grey levels from 0 to 1 in steps of 1/255, as JSON writers write them.
func newBodies() *bodies {
	random := rand.New(rand.NewPCG(7, 7))
	b := &bodies{}
	for range floats - 1 {
		b.rest = append(b.rest, ',')
		b.rest = strconv.AppendFloat(b.rest, float64(float32(random.IntN(256))/255), 'g', -1, 32)
	}
	b.rest = append(b.rest, "]}"...)
	return b
}

func (b *bodies) next() []byte {
	body := append(make([]byte, 0, 32+len(b.rest)), `{"input":[`...)
	body = strconv.AppendUint(body, uint64(b.count.Add(1)%(1<<24)), 10)
	return append(body, b.rest...)
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
	bare, stop, err := startPeer()
	if err != nil {
		return nil, fmt.Errorf("bare server: %w", err)
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

	inputs := newBodies()
	sides := []struct {
		name string
		call func(context.Context) error
		runs []load.Measurement
	}{{name: "bare net/http with encoding/json", call: query(bare, inputs)}, {name: "REST, one process", call: query(clipper.QueryHTTP, inputs)}}
	// The sides take turns, so that a change of the machine's speed meets both.
	for round := range rounds {
		for i := range sides {
			_, _ = fmt.Fprintf(log, "round %d of %d: %s\n", round+1, rounds, sides[i].name)
			m := load.Closed(ctx, callers, window, sides[i].call)
			if m.Errors > 0 {
				return nil, fmt.Errorf("%s: %d errors, one of them: %w", sides[i].name, m.Errors, m.FirstError)
			}
			sides[i].runs = append(sides[i].runs, m)
		}
	}

	r := &experiment.Result{
		Load: fmt.Sprintf("closed loop, %d callers with connections that stay open, %d floats a query in a body of %d bytes, no two equal; no-op container, cache off; %d rounds of %v each in turn, medians; client, servers and container share the machine",
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
	ratio := median(func(i int) float64 { return sides[1].runs[i].Throughput / sides[0].runs[i].Throughput })
	r.Bars = []experiment.Bar{experiment.AtLeast("throughput of REST over bare decoding", ratio, "x", 0.6)}
	return r, nil
}

// startPeer starts this program again as the bare server and waits until it listens.
func startPeer() (address string, stop func(), err error) {
	if address, err = system.FreeAddress(); err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	peer, err := system.Start([]string{PeerVariable + "=" + address}, self)
	if err != nil {
		return "", nil, err
	}
	if err := system.AwaitListener(address); err != nil {
		peer.Stop()
		return "", nil, err
	}
	return address, peer.Stop, nil
}

// query returns a function that sends one query and requires an answer of a container.
func query(address string, inputs *bodies) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	url := "http://" + address + "/v1/applications/" + app + "/query"
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(inputs.next()))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return err
		case response.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"is_default":true`)):
			return fmt.Errorf("status %d: %s", response.StatusCode, answer)
		}
		return nil
	}
}
