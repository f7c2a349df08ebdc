// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// PeerVariable is the environment variable that makes this program a peer: its value is the addresses
// of the gRPC echo, of the HTTP echo, of the forwarder, and of the container that it forwards to. A
// process of its own keeps the comparison fair: Clipper does not share its memory with the client
// either.
const PeerVariable = "CLIPPER_BENCH_PEER"

// echo is the least that a gRPC server can do with a query.
type echo struct {
	clipperv1.UnimplementedQueryServiceServer
}

// Query answers with the input.
func (echo) Query(_ context.Context, r *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	return &clipperv1.QueryResponse{Outputs: r.Inputs}, nil
}

// forwarder is the least that a server can do which asks a container for each query: it sends each on
// the one stream, by itself, and looks at nothing. What it costs is what gRPC costs on the same way.
type forwarder struct {
	clipperv1.UnimplementedQueryServiceServer
	stream grpc.BidiStreamingClient[clipperv1.PredictRequest, clipperv1.PredictResponse]

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan *clipperv1.PredictResponse
}

// Query answers with what the container answers.
func (f *forwarder) Query(_ context.Context, r *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	in := r.Inputs[0]
	answer := make(chan *clipperv1.PredictResponse, 1)
	f.mu.Lock()
	f.lastID++
	id := f.lastID
	f.waiting[id] = answer
	err := f.stream.Send(&clipperv1.PredictRequest{Id: id, Rows: 1, Inputs: []*clipperv1.BatchTensor{{DataType: in.DataType, Shape: in.Shape, Data: in.Data}}})
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	out := (<-answer).Outputs[0]
	return &clipperv1.QueryResponse{Outputs: []*clipperv1.Tensor{{DataType: out.DataType, Shape: out.Shape, Data: out.Data}}}, nil
}

// receive hands out the container's answers until the stream ends.
func (f *forwarder) receive() error {
	for {
		m, err := f.stream.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		answer := f.waiting[m.Id]
		delete(f.waiting, m.Id)
		f.mu.Unlock()
		answer <- m
	}
}

// echoJSON is the least that an HTTP server can do with a query: decode it and encode it again.
func echoJSON(w http.ResponseWriter, r *http.Request) {
	var body map[string][]float64
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

// Peer serves until a signal comes.
func Peer(addresses string) error {
	var echoAddress, httpAddress, forwarderAddress, container string
	if _, err := fmt.Sscan(addresses, &echoAddress, &httpAddress, &forwarderAddress, &container); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := grpc.NewClient(container, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := clipperv1.NewModelContainerServiceClient(conn).Predict(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	f := &forwarder{stream: stream, waiting: map[uint64]chan *clipperv1.PredictResponse{}}
	failed := make(chan error, 4)
	go func() { failed <- f.receive() }()
	for address, service := range map[string]clipperv1.QueryServiceServer{echoAddress: echo{}, forwarderAddress: f} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		clipperv1.RegisterQueryServiceServer(server, service)
		go func() { failed <- server.Serve(l) }()
		defer server.Stop()
	}
	web := &http.Server{Addr: httpAddress, Handler: http.HandlerFunc(echoJSON), ReadHeaderTimeout: 5 * time.Second}
	go func() { failed <- web.ListenAndServe() }()
	defer func() { _ = web.Close() }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// peers are the addresses of what is compared with.
type peers struct{ echo, http, forwarder string }

// startPeers starts a no-op container and this program again as the peer, and waits until it listens.
func startPeers(noop, folder string, stops *[]func()) (a peers, err error) {
	socket := "unix:" + filepath.Join(folder, "noop.sock")
	container, err := system.Start([]string{"CLIPPER_CONTAINER_ADDRESS=" + socket}, noop)
	if err != nil {
		return a, err
	}
	*stops = append(*stops, container.Stop)
	for _, address := range []*string{&a.echo, &a.http, &a.forwarder} {
		if *address, err = system.FreeAddress(); err != nil {
			return a, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	peer, err := system.Start([]string{PeerVariable + "=" + strings.Join([]string{a.echo, a.http, a.forwarder, socket}, " ")}, self)
	if err != nil {
		return a, err
	}
	*stops = append(*stops, peer.Stop)
	for _, address := range []string{a.echo, a.http, a.forwarder} {
		if err := system.AwaitListener(address); err != nil {
			return a, err
		}
	}
	return a, nil
}
