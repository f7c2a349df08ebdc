// SPDX-License-Identifier: Apache-2.0

// Package edge measures what Clipper costs on the way of a query: a container that does nothing,
// the cache off, beside bare servers that echo the same messages to the same client.
package edge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	callers = 64
	rounds  = 5
	window  = 2 * time.Second
	idle    = 10 * time.Second
	app     = "noop"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "edge",
	Summary: "cost of the way of a query: one process, three processes and REST against bare echoes; idle use",
	Run:     run,
}

// inputs makes inputs of 16 floats, 64 bytes. No two that are under way are equal, since equal ones
// would be predicted once.
type inputs struct{ count atomic.Uint32 }

const floats = 16

func (in *inputs) next() float32 { return float32(in.count.Add(1) % (1 << 20)) }

func (in *inputs) tensors() []*clipperv1.Tensor {
	data := make([]byte, 4*floats)
	binary.LittleEndian.PutUint32(data, math.Float32bits(in.next()))
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}, Data: data}}
}

var restOfJSON = strings.Repeat(", 0.5", floats-1) + "]}"

func (in *inputs) json() []byte {
	return append(strconv.AppendFloat([]byte(`{"input": [`), float64(in.next()), 'g', -1, 32), restOfJSON...)
}

// side is one thing that is measured, in every round.
type side struct {
	name    string
	callers int
	call    func(context.Context) error
	runs    []load.Measurement
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

	var stops []func()
	defer func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}()
	peer, err := startPeers(binaries.Noop, folder, &stops)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	one, err := startClipper(ctx, binaries, false, &stops)
	if err != nil {
		return nil, fmt.Errorf("one process: %w", err)
	}
	_, _ = fmt.Fprintf(log, "idle for %v\n", idle)
	idleCPU, idleMemory, err := measureIdle(ctx, one.Processes[0])
	if err != nil {
		return nil, err
	}
	three, err := startClipper(ctx, binaries, true, &stops)
	if err != nil {
		return nil, fmt.Errorf("three processes: %w", err)
	}

	var sides []*side
	add := func(name string, callers int, call func(context.Context) error) *side {
		sides = append(sides, &side{name: name, callers: callers, call: call})
		return sides[len(sides)-1]
	}
	calls := map[string]func(context.Context) error{}
	for _, address := range []string{peer.echo, peer.forwarder, one.QueryGRPC, three.QueryGRPC} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		stops = append(stops, func() { _ = conn.Close() })
		calls[address] = queryGRPC(clipperv1.NewQueryServiceClient(conn))
	}
	echoMany := add("bare gRPC echo", callers, calls[peer.echo])
	add("bare gRPC forwarder", callers, calls[peer.forwarder])
	oneMany := add("one process", callers, calls[one.QueryGRPC])
	threeMany := add("three processes", callers, calls[three.QueryGRPC])
	echoLone := add("bare gRPC echo", 1, calls[peer.echo])
	forwarderLone := add("bare gRPC forwarder", 1, calls[peer.forwarder])
	oneLone := add("one process", 1, calls[one.QueryGRPC])
	httpMany := add("bare HTTP echo", callers, queryHTTP(peer.http))
	restMany := add("REST, one process", callers, queryHTTP(one.QueryHTTP))

	// The sides take turns, so that a change of the machine's speed meets all of them.
	for round := range rounds {
		for _, s := range sides {
			_, _ = fmt.Fprintf(log, "round %d of %d: %s, %d callers\n", round+1, rounds, s.name, s.callers)
			m := load.Closed(ctx, s.callers, window, s.call)
			if m.Errors > 0 {
				return nil, fmt.Errorf("%s: %d errors, one of them: %w", s.name, m.Errors, m.FirstError)
			}
			s.runs = append(s.runs, m)
		}
	}

	r := &experiment.Result{
		Load: fmt.Sprintf("closed loop, %d callers and 1 caller on one connection, 16 floats (64 bytes) a query, no two equal, REST body about %d bytes; no-op container, cache off; %d rounds of %v each in turn, medians; client, servers and container share the machine",
			callers, len(new(inputs).json()), rounds, window),
		Columns: []string{"side", "callers", "calls/s", "p50 ms", "p99 ms"},
		Plot:    &experiment.Plot{Title: "Queries per second, 64 callers", Y: "calls/s"},
	}
	for _, s := range sides {
		r.Rows = append(r.Rows, []any{s.name, s.callers, s.median(throughput), s.median(p50), s.median(p99)})
		if s.callers == callers {
			r.Plot.Names = append(r.Plot.Names, s.name)
			r.Plot.Values = append(r.Plot.Values, s.median(throughput))
		}
	}
	for _, s := range []*side{forwarderLone, oneLone} {
		r.Rows = append(r.Rows, []any{s.name + ": added to the echo", 1, "", added(s, echoLone), ""})
	}
	r.Bars = []experiment.Bar{
		experiment.AtLeast("throughput of one process over bare gRPC echo", ratio(oneMany, echoMany), "x", 0.5),
		experiment.AtLeast("throughput of three processes over bare gRPC echo", ratio(threeMany, echoMany), "x", 0.3),
		experiment.AtMost("p50 added by one process to bare gRPC echo, one caller", added(oneLone, echoLone), "ms", 0.15),
		experiment.AtLeast("throughput of REST over bare HTTP echo", ratio(restMany, httpMany), "x", 0.5),
		experiment.AtMost("idle CPU of one process", idleCPU, "% of a core", 1),
		experiment.AtMost("idle resident memory of one process", idleMemory, "MB", 60),
	}
	return r, nil
}

func startClipper(ctx context.Context, b system.Binaries, three bool, stops *[]func()) (*system.Clipper, error) {
	c, err := system.StartClipper(b, three)
	if err != nil {
		return nil, err
	}
	*stops = append(*stops, c.Stop)
	err = c.Serve(ctx, app, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
		Cache:     &clipperv1.Cache{Disabled: true},
	}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
	})
	return c, err
}

// errDefault says that a query was not answered by the container, so its time means nothing.
var errDefault = errors.New("the default output was given")

func queryGRPC(client clipperv1.QueryServiceClient) func(context.Context) error {
	var in inputs
	return func(ctx context.Context) error {
		answer, err := client.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: in.tensors()})
		if err == nil && answer.IsDefault {
			return fmt.Errorf("%w: %v", errDefault, answer)
		}
		return err
	}
}

func queryHTTP(address string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	var in inputs
	url := "http://" + address + "/v1/applications/" + app + "/query"
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(in.json()))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return err
		case response.StatusCode != http.StatusOK:
			return fmt.Errorf("status %d: %s", response.StatusCode, body)
		case bytes.Contains(body, []byte(`"is_default":true`)):
			return fmt.Errorf("%w: %s", errDefault, body)
		}
		return nil
	}
}

// measureIdle returns the share of a core in per cent and the memory in MB of a process that has
// nothing to do.
func measureIdle(ctx context.Context, p *system.Process) (cpu, memory float64, err error) {
	begin, err := p.CPU()
	if err != nil {
		return 0, 0, err
	}
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	end, err := p.CPU()
	if err != nil {
		return 0, 0, err
	}
	resident, err := p.Resident()
	return 100 * (end - begin).Seconds() / idle.Seconds(), float64(resident) / 1e6, err
}

func throughput(m load.Measurement) float64 { return m.Throughput }
func p50(m load.Measurement) float64        { return m.P50.Seconds() * 1e3 }
func p99(m load.Measurement) float64        { return m.P99.Seconds() * 1e3 }

func (s *side) median(figure func(load.Measurement) float64) float64 {
	figures := make([]float64, len(s.runs))
	for i, m := range s.runs {
		figures[i] = figure(m)
	}
	return experiment.Median(figures)
}

// ratio is the median over the rounds of a's throughput over b's in the same round.
func ratio(a, b *side) float64 {
	ratios := make([]float64, len(a.runs))
	for i := range ratios {
		ratios[i] = a.runs[i].Throughput / b.runs[i].Throughput
	}
	return experiment.Median(ratios)
}

// added is the median over the rounds of what a's p50 is above b's in the same round, in ms.
func added(a, b *side) float64 {
	figures := make([]float64, len(a.runs))
	for i := range figures {
		figures[i] = p50(a.runs[i]) - p50(b.runs[i])
	}
	return experiment.Median(figures)
}
