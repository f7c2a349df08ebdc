// SPDX-License-Identifier: Apache-2.0

// Package oip serves the Open Inference Protocol, version 2, so that the clients of Triton, KServe and
// MLServer can ask Clipper as they are. An application answers as a model of its name; where no
// application has a name, a model of that name answers itself.
//
// It is a translation: what it is asked goes to the services of the frontend over a connection, with the
// caller's metadata and so with his credentials, and is checked and limited there as any other query.
package oip

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/gen/go/inference/modelrepository"
)

// Dialects, which differ where implementations of the protocol contradict each other.
const (
	// Triton answers raw whatever it was asked with, and wraps the answers of streams.
	Triton = "triton"
	// MLServer answers typed contents with typed contents, and streams plain answers.
	MLServer = "mlserver"
)

// DialectKey is the key of the metadata by which a call chooses its dialect.
const DialectKey = "oip-dialect"

// Applications is what is known of the applications. Safe for concurrent use; what it returns is not
// modified.
type Applications interface {
	// Application returns an application. NOT_FOUND: there is none of this name.
	Application(name string) (*clipperv1.Application, error)
	// Applications returns the names of all applications, sorted.
	Applications() []string
	// Ready returns nil when the applications are known.
	Ready(ctx context.Context) error
}

// Deps is what a server works with. All but Draining are required.
type Deps struct {
	Applications Applications
	// Query answers; its connection checks the caller's credentials.
	Query clipperv1.QueryServiceClient
	// Admin changes models; its connection checks the caller's credentials.
	Admin clipperv1.ModelServiceClient
	// Models describes models to whoever may call the protocol.
	Models clipperv1.ModelServiceClient
	// Draining is closed when open streams are to end.
	Draining <-chan struct{}
	// Dialect is that of calls which choose none: Triton or MLServer.
	Dialect string
	// StreamInFlight is the most requests of one stream that are answered at once.
	StreamInFlight int
	// Version is the server's.
	Version string
}

// Server is the service of the protocol. Safe for concurrent use.
type Server struct {
	inference.UnimplementedGRPCInferenceServiceServer
	deps       Deps
	statistics statistics

	mu     sync.Mutex
	models map[string]knownModel // by name; see target
}

var _ inference.GRPCInferenceServiceServer = (*Server)(nil)

// New returns a server.
func New(deps Deps) *Server {
	return &Server{deps: deps, models: map[string]knownModel{}, statistics: statistics{of: map[served]*counts{}}}
}

// RegisterQuery registers the protocol for those who ask: loading and unloading is refused.
func (s *Server) RegisterQuery(r grpc.ServiceRegistrar) {
	inference.RegisterGRPCInferenceServiceServer(r, s)
	modelrepository.RegisterModelRepositoryServiceServer(r, repositoryServer{s: s})
}

// RegisterAdmin registers the protocol for those who administer, loading and unloading included.
func (s *Server) RegisterAdmin(r grpc.ServiceRegistrar) {
	inference.RegisterGRPCInferenceServiceServer(r, adminServer{s})
	modelrepository.RegisterModelRepositoryServiceServer(r, repositoryServer{s: s, admin: true})
}

// Extensions are those of the protocol's that the server has, over gRPC.
var Extensions = []string{"model_configuration", "model_repository", "schedule_policy", "statistics", "parameters"}

// ServerLive implements the protocol: who can be asked is live.
func (s *Server) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

// ServerReady implements the protocol: the server is ready while it knows the applications and does not
// drain.
func (s *Server) ServerReady(ctx context.Context, _ *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	select {
	case <-s.deps.Draining:
		return &inference.ServerReadyResponse{}, nil
	default:
		return &inference.ServerReadyResponse{Ready: s.deps.Applications.Ready(ctx) == nil}, nil
	}
}

// ServerMetadata implements the protocol.
func (s *Server) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: "clipper", Version: s.deps.Version, Extensions: Extensions}, nil
}

// dialect returns the dialect of a call.
func (s *Server) dialect(ctx context.Context) string {
	if chosen := metadata.ValueFromIncomingContext(ctx, DialectKey); len(chosen) > 0 {
		return chosen[0]
	}
	return s.deps.Dialect
}

// onBehalf returns a context for calls with the caller's metadata.
func onBehalf(ctx context.Context) context.Context {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		return metadata.NewOutgoingContext(ctx, md)
	}
	return ctx
}

// knownModel is a model as it was at a time.
type knownModel struct {
	model *clipperv1.Model
	at    time.Time
}
