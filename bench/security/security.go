// SPDX-License-Identifier: Apache-2.0

// Package security measures what it costs to be protected: the same queries to installations that differ in
// nothing else.
package security

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/certs/certstest"
)

const (
	callers = 64
	rounds  = 5
	window  = 2 * time.Second
	app     = "noop"
	floats  = 784
	least   = 0.8
	plain   = "plain"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "security",
	Summary: "throughput of gRPC and REST with TLS (mutual between the services), with keys and limits, and with all of it, against the same without",
	Run:     run,
}

// protection is one way to be protected. The first one is plain, which the others are compared with.
type protection struct {
	name   string
	flags  []string // of `clipper up`, and --services-...
	client certs.Client
	key    string // Empty: none is required.
}

func protections(folder string) ([]protection, error) {
	ca, err := certstest.New(folder, "ca")
	if err != nil {
		return nil, err
	}
	cert, key, err := ca.Issue("clipper", 24*time.Hour)
	if err != nil {
		return nil, err
	}
	var flags []string
	for _, listener := range []string{"frontend-http", "frontend-grpc", "selector-grpc", "abstraction-grpc"} {
		flags = append(flags, "--"+listener+"-tls-cert="+cert, "--"+listener+"-tls-key="+key)
		if !strings.HasPrefix(listener, "frontend") {
			flags = append(flags, "--"+listener+"-tls-client-ca="+ca.Path)
		}
	}
	flags = append(flags, "--services-tls-ca="+ca.Path, "--services-tls-cert="+cert, "--services-tls-key="+key)
	// The limits are counted and never reached.
	const secret = "0123456789abcdef0123456789abcdef"
	keys := filepath.Join(folder, "keys.yaml")
	text := "keys: [{name: bench, secret: " + secret + `, roles: [admin], applications: ["*"], limits: {queries_per_second: 1e6, concurrency: 100000}}]`
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		return nil, err
	}
	auth := []string{"--frontend-auth-keys-file=" + keys}
	client := certs.Client{CA: ca.Path}
	return []protection{
		{name: plain},
		{name: "TLS", flags: flags, client: client},
		{name: "keys and limits", flags: auth, key: secret},
		{name: "all", flags: slices.Concat(flags, auth), client: client, key: secret},
	}, nil
}

// only returns the flags that an installation has: `clipper up` has no links, and listeners for queries alone.
func (p protection) only(three bool) []string {
	if three {
		return p.flags
	}
	return slices.DeleteFunc(slices.Clone(p.flags), func(flag string) bool { return !strings.HasPrefix(flag, "--frontend-") })
}

// with returns the context of a call with the key.
func (p protection) with(ctx context.Context) context.Context {
	if p.key == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.key)
}

// side is one installation and protocol under one protection.
type side struct {
	protection, what string
	call             func(context.Context) error
	runs             []load.Measurement
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
	ways, err := protections(folder)
	if err != nil {
		return nil, err
	}
	var stops []func()
	defer func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}()
	var sides []*side
	for _, three := range []bool{false, true} {
		for _, p := range ways {
			c, err := start(p.with(ctx), binaries, three, p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			stops = append(stops, c.Stop)
			form := "one process"
			if three {
				form = "three processes"
			}
			secure, err := p.client.Credentials(slog.New(slog.DiscardHandler))
			if err != nil {
				return nil, err
			}
			conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(secure))
			if err != nil {
				return nil, err
			}
			stops = append(stops, func() { _ = conn.Close() })
			sides = append(sides, &side{protection: p.name, what: "gRPC, " + form, call: queryGRPC(clipperv1.NewQueryServiceClient(conn), p)})
			if three {
				continue
			}
			call, err := queryREST(c.QueryHTTP, p.client, p.key)
			if err != nil {
				return nil, err
			}
			sides = append(sides, &side{protection: p.name, what: "REST, " + form, call: call})
		}
	}

	// The sides take turns, so that a change of the machine's speed meets all of them.
	for round := range rounds {
		for _, s := range sides {
			_, _ = fmt.Fprintf(log, "round %d of %d: %s, %s\n", round+1, rounds, s.what, s.protection)
			m := load.Closed(ctx, callers, window, s.call)
			if m.Errors > 0 {
				return nil, fmt.Errorf("%s, %s: %d errors, one of them: %w", s.what, s.protection, m.Errors, m.FirstError)
			}
			s.runs = append(s.runs, m)
		}
	}

	r := &experiment.Result{
		Load: fmt.Sprintf("closed loop, %d callers, %d floats a query, no two equal; gRPC on one connection, REST over kept HTTP/1.1 connections; TLS 1.3 (ECDSA P-256), mutual between the services; no-op container, cache off; %d rounds of %v each in turn, medians; client, servers and container share the machine",
			callers, floats, rounds, window),
		Columns: []string{"side", "protection", "calls/s", "p50 ms", "p99 ms"},
		Plot:    &experiment.Plot{Title: "Queries per second, 64 callers", Y: "calls/s"},
	}
	for _, s := range sides {
		r.Rows = append(r.Rows, []any{s.what, s.protection, s.median(throughput), s.median(p50), s.median(p99)})
		r.Plot.Names = append(r.Plot.Names, s.what+", "+s.protection)
		r.Plot.Values = append(r.Plot.Values, s.median(throughput))
		if s.protection == plain {
			continue
		}
		without := sides[slices.IndexFunc(sides, func(o *side) bool { return o.what == s.what && o.protection == plain })]
		r.Bars = append(r.Bars, experiment.AtLeast(s.what+": throughput with "+s.protection+" over without", ratio(s, without), "x", least))
	}
	return r, nil
}

func start(ctx context.Context, b system.Binaries, three bool, p protection) (*system.Clipper, error) {
	c, err := system.StartClipper(b, three, p.only(three)...)
	if err != nil {
		return nil, err
	}
	var limits *clipperv1.Limits
	if p.key != "" {
		limits = &clipperv1.Limits{QueriesPerSecond: 1e6, Concurrency: 100_000}
	}
	err = c.Serve(ctx, app, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
		Cache:     &clipperv1.Cache{Disabled: true},
	}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
		Limits:           limits,
	})
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// errDefault says that a query was not answered by the container, so its time means nothing.
var errDefault = errors.New("the default output was given")

// next makes the first number of an input, so that no two that are under way are equal.
type next struct{ count atomic.Uint32 }

func (n *next) number() float32 { return float32(n.count.Add(1) % (1 << 20)) }

func queryGRPC(client clipperv1.QueryServiceClient, p protection) func(context.Context) error {
	var n next
	return func(ctx context.Context) error {
		data := make([]byte, 4*floats)
		binary.LittleEndian.PutUint32(data, math.Float32bits(n.number()))
		answer, err := client.Query(p.with(ctx), &clipperv1.QueryRequest{Application: app, Inputs: []*clipperv1.Tensor{
			{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}, Data: data},
		}})
		if err == nil && answer.IsDefault {
			return fmt.Errorf("%w: %v", errDefault, answer)
		}
		return err
	}
}

func queryREST(address string, files certs.Client, key string) (func(context.Context) error, error) {
	transport, scheme := &http.Transport{MaxIdleConnsPerHost: callers}, "http"
	if files.Enabled() {
		var err error
		var cfg *tls.Config
		if cfg, err = files.Config(); err != nil {
			return nil, err
		}
		transport.TLSClientConfig, scheme = cfg, "https"
	}
	client := &http.Client{Transport: transport}
	url := scheme + "://" + address + "/v1/applications/" + app + "/query"
	rest := strings.Repeat(", 0.5", floats-1) + "]}"
	var n next
	return func(ctx context.Context) error {
		body := append(strconv.AppendFloat([]byte(`{"input": [`), float64(n.number()), 'g', -1, 32), rest...)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return err
		case response.StatusCode != http.StatusOK:
			return fmt.Errorf("status %d: %s", response.StatusCode, answer)
		case bytes.Contains(answer, []byte(`"is_default":true`)):
			return fmt.Errorf("%w: %s", errDefault, answer)
		}
		return nil
	}, nil
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
