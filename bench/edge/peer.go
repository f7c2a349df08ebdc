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
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// PeerVariable is the environment variable that makes this program a peer: its value is "ADDRESS of
// the gRPC echo,ADDRESS of the HTTP echo". A process of its own keeps the comparison fair: Clipper
// does not share its memory with the client either.
const PeerVariable = "CLIPPER_BENCH_PEER"

// echo is the least that a gRPC server can do with a query.
type echo struct {
	clipperv1.UnimplementedQueryServiceServer
}

// Query answers with the input.
func (echo) Query(_ context.Context, r *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	return &clipperv1.QueryResponse{Outputs: r.Inputs}, nil
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

// Peer serves the echoes until a signal comes.
func Peer(addresses string) error {
	var grpcAddress, httpAddress string
	if _, err := fmt.Sscan(addresses, &grpcAddress, &httpAddress); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", grpcAddress)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	clipperv1.RegisterQueryServiceServer(server, echo{})
	web := &http.Server{Addr: httpAddress, Handler: http.HandlerFunc(echoJSON), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(l) }()
	go func() { failed <- web.ListenAndServe() }()
	select {
	case <-ctx.Done():
		server.Stop()
		return web.Close()
	case err := <-failed:
		return err
	}
}

// startPeers starts this program again as the peer and waits until it listens.
func startPeers() (grpcAddress, httpAddress string, stop func(), err error) {
	if grpcAddress, err = system.FreeAddress(); err != nil {
		return "", "", nil, err
	}
	if httpAddress, err = system.FreeAddress(); err != nil {
		return "", "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", "", nil, err
	}
	p, err := system.Start([]string{PeerVariable + "=" + grpcAddress + " " + httpAddress}, self)
	if err != nil {
		return "", "", nil, err
	}
	for _, address := range []string{grpcAddress, httpAddress} {
		if err := system.AwaitListener(address); err != nil {
			p.Stop()
			return "", "", nil, err
		}
	}
	return grpcAddress, httpAddress, p.Stop, nil
}
