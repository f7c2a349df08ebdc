// SPDX-License-Identifier: Apache-2.0

// Package container is the runtime of model containers written in Go. It does everything but the
// prediction: server, stream, health, deadlines, errors of batches and rows, graceful stop.
//
//	func main() {
//		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
//		defer stop()
//		if err := container.Run(ctx, container.ConfigFromEnvironment(), model{}); err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//	}
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// defaultInFlight and defaultMessageBytes hold when the model's description does not say.
	defaultInFlight     = 2
	defaultMessageBytes = 64 << 20
	// windowBytes is the flow-control window: a whole batch of the usual size fits.
	windowBytes = 16 << 20
	// DefaultGracePeriod is Config.GracePeriod when it is 0.
	DefaultGracePeriod = 30 * time.Second
)

// Model is what a container serves.
type Model interface {
	// Describe says what the model is. It is called once, before the container serves. A parallel
	// model sets max_in_flight to the number of batches that Predict may get at once.
	Describe() *clipperv1.DescribeResponse
	// Predict predicts a batch. An error fails the whole batch, its text is shown to callers; a gRPC
	// status keeps its code. ctx ends when nobody waits for the result any more. The batch is not to
	// be kept after Predict returns.
	Predict(ctx context.Context, b *Batch) (*Result, error)
}

// ParallelModel is a Model whose Predict may run several times at once. Any other gets one batch
// after the other.
type ParallelModel interface {
	Model
	// Parallel marks the type.
	Parallel()
}

// Batch is the rows to predict.
type Batch struct {
	// Rows is their number, at least 1.
	Rows int
	// Inputs has one entry for each input tensor, each with all rows.
	Inputs []*clipperv1.BatchTensor
}

// Result is the answer to a batch.
type Result struct {
	// Outputs has one entry for each output tensor, each with all rows in the order of the batch. A
	// row with an error still takes its place.
	Outputs []*clipperv1.BatchTensor
	// RowErrors are the rows that failed.
	RowErrors map[int]error
}

// Config says where a container serves.
type Config struct {
	// Address is "unix:/path" or "host:port".
	Address string
	// Model and Version are given by the launcher and fill what the model's description leaves empty.
	Model, Version string
	// RegisterAddress is the gRPC address of Clipper's administration (of a frontend, or of an instance
	// of the abstraction service). If it is set, the container registers there as a replica, and leaves
	// when it stops; for containers that no launcher has started.
	RegisterAddress string
	// AdvertiseAddress is where Clipper reaches the container, if that is not Address.
	AdvertiseAddress string
	// ExitWithParent is a pipe whose end means that the one who started the container is gone: the
	// container stops then. May be nil.
	ExitWithParent io.Reader
	// GracePeriod is the time that batches have to finish when the container is to stop. Default 30 s.
	GracePeriod time.Duration
}

// ConfigFromEnvironment reads the variables that a launcher sets: CLIPPER_CONTAINER_ADDRESS,
// CLIPPER_MODEL_NAME, CLIPPER_MODEL_VERSION and CLIPPER_EXIT_WITH_PARENT; and those of a container
// that registers by itself: CLIPPER_REGISTER_ADDRESS and CLIPPER_ADVERTISE_ADDRESS.
func ConfigFromEnvironment() Config {
	cfg := Config{
		Address: os.Getenv("CLIPPER_CONTAINER_ADDRESS"),
		Model:   os.Getenv("CLIPPER_MODEL_NAME"),
		Version: os.Getenv("CLIPPER_MODEL_VERSION"),

		RegisterAddress:  os.Getenv("CLIPPER_REGISTER_ADDRESS"),
		AdvertiseAddress: os.Getenv("CLIPPER_ADVERTISE_ADDRESS"),
	}
	if os.Getenv("CLIPPER_EXIT_WITH_PARENT") == "1" {
		cfg.ExitWithParent = os.Stdin
	}
	return cfg
}

// Run listens at the configured address and serves the model until ctx ends; then it answers the
// batches that it has, ends the streams and returns nil.
func Run(ctx context.Context, cfg Config, m Model) error {
	network, address := "tcp", cfg.Address
	if path, ok := strings.CutPrefix(cfg.Address, "unix:"); ok {
		network, address = "unix", path
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // Left by one that was killed.
			return fmt.Errorf("container: %w", err)
		}
	}
	if address == "" {
		return errors.New("container: no address: set CLIPPER_CONTAINER_ADDRESS to unix:/path or host:port")
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	return Serve(ctx, cfg, l, m)
}

// Serve is Run with a listener, which it closes.
func Serve(ctx context.Context, cfg Config, l net.Listener, m Model) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if cfg.ExitWithParent != nil {
		go func() {
			_, _ = io.Copy(io.Discard, cfg.ExitWithParent)
			stop()
		}()
	}
	s := newServer(cfg, m)
	if cfg.RegisterAddress == "" {
		return s.serve(ctx, cfg, l)
	}
	r, err := newRegistration(cfg, s.description, l)
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("container: %w", err)
	}
	defer r.close()
	// It leaves first, and then stops serving.
	serving, drain := context.WithCancel(context.WithoutCancel(ctx))
	registered := make(chan error, 1)
	go func() {
		defer drain()
		registered <- r.keep(ctx)
	}()
	err = s.serve(serving, cfg, l)
	stop()
	return errors.Join(err, <-registered)
}

// serve serves until ctx ends, and then what is under way. It closes the listener.
func (s *server) serve(ctx context.Context, cfg Config, l net.Listener) error {
	maxBytes := defaultMessageBytes
	if n := s.description.MaxMessageBytes; n > 0 {
		maxBytes = int(min(n, math.MaxInt32))
	}
	s.description.MaxMessageBytes = uint64(maxBytes)
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxBytes),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes),
	)
	h := health.NewServer()
	clipperv1.RegisterModelContainerServiceServer(g, s)
	grpc_health_v1.RegisterHealthServer(g, h)

	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("container: %w", err)
	case <-ctx.Done():
	}
	h.Shutdown()
	close(s.draining)
	grace := cfg.GracePeriod
	if grace == 0 {
		grace = DefaultGracePeriod
	}
	force := time.AfterFunc(grace, g.Stop)
	defer force.Stop()
	g.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // It may not have begun.
		return fmt.Errorf("container: %w", err)
	}
	return nil
}

type server struct {
	clipperv1.UnimplementedModelContainerServiceServer
	model       Model
	description *clipperv1.DescribeResponse
	workers     int        // of one stream
	turn        sync.Mutex // held during Predict by a model that is not parallel
	parallel    bool
	draining    chan struct{}
}

func newServer(cfg Config, m Model) *server {
	d := m.Describe()
	if d.Model == "" {
		d.Model = cfg.Model
	}
	if d.Version == "" {
		d.Version = cfg.Version
	}
	if d.MaxInFlight == 0 {
		d.MaxInFlight = defaultInFlight
	}
	s := &server{model: m, description: d, workers: 1, draining: make(chan struct{})}
	if _, s.parallel = m.(ParallelModel); s.parallel {
		s.workers = int(d.MaxInFlight)
	}
	return s
}

// Describe implements clipperv1.ModelContainerServiceServer.
func (s *server) Describe(context.Context, *clipperv1.DescribeRequest) (*clipperv1.DescribeResponse, error) {
	return s.description, nil
}

// Predict implements clipperv1.ModelContainerServiceServer. Each worker of the stream receives,
// predicts and sends in turn, so that a batch changes goroutines at no point; the batches of a
// model that is not parallel wait in the transport.
func (s *server) Predict(stream grpc.BidiStreamingServer[clipperv1.PredictRequest, clipperv1.PredictResponse]) error {
	var receive, send sync.Mutex
	// working is held shared by a worker that has a batch.
	var working sync.RWMutex
	drained := false
	work := func() error {
		for {
			receive.Lock()
			req, err := stream.Recv()
			if err != nil {
				receive.Unlock()
				return err
			}
			working.RLock()
			receive.Unlock()
			if drained { // The caller will see that it is not answered, and ask elsewhere.
				working.RUnlock()
				return nil
			}
			resp := s.predict(stream.Context(), req)
			send.Lock()
			err = stream.Send(resp)
			send.Unlock()
			working.RUnlock()
			if err != nil {
				return err
			}
		}
	}
	ended := make(chan error, s.workers)
	for range s.workers {
		go func() { ended <- work() }()
	}
	select {
	case err := <-ended:
		working.Lock() // The other workers' answers are still welcome when the caller closed its side.
		defer working.Unlock()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-s.draining:
		working.Lock()
		defer working.Unlock()
		drained = true
		return nil
	}
}

// predict answers one batch.
func (s *server) predict(ctx context.Context, req *clipperv1.PredictRequest) *clipperv1.PredictResponse {
	if req.TimeoutMicros > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(req.TimeoutMicros, uint64(math.MaxInt64/time.Microsecond)))*time.Microsecond)
		defer cancel()
	}
	if !s.parallel {
		s.turn.Lock()
		defer s.turn.Unlock()
	}
	resp := &clipperv1.PredictResponse{Id: req.Id}
	if err := checkRequest(req, s.description); err != nil {
		resp.Error = err.toProto()
		return resp
	}
	begin := time.Now()
	var result *Result
	err := ctx.Err()
	if err == nil {
		result, err = call(ctx, s.model, &Batch{Rows: int(req.Rows), Inputs: req.Inputs})
	}
	resp.PredictMicros = uint64(time.Since(begin).Microseconds())
	if err != nil {
		resp.Error = toProto(err)
		return resp
	}
	resp.Outputs = result.Outputs
	for row, err := range result.RowErrors {
		resp.RowErrors = append(resp.RowErrors, &clipperv1.RowError{Row: uint32(row), Error: toProto(err)})
	}
	slices.SortFunc(resp.RowErrors, func(a, b *clipperv1.RowError) int { return int(a.Row) - int(b.Row) })
	return resp
}

// call makes an error of a panic: one bad batch does not end the container.
func call(ctx context.Context, m Model, b *Batch) (r *Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "container: the model panicked: %v\n%s", p, debug.Stack())
			r, err = nil, fmt.Errorf("the model panicked: %v", p)
		}
	}()
	r, err = m.Predict(ctx, b)
	if err == nil && r == nil {
		err = errors.New("the model returned no result")
	}
	return r, err
}

func toProto(err error) *clipperv1.Error {
	e := &clipperv1.Error{Code: uint32(codes.Unknown), Message: err.Error(), Reason: clipperv1.ErrorReason_ERROR_REASON_MODEL_FAILED}
	if st, ok := status.FromError(err); ok {
		e.Code, e.Message = uint32(st.Code()), st.Message()
	} else if errors.Is(err, context.DeadlineExceeded) {
		e.Code, e.Message, e.Reason = uint32(codes.DeadlineExceeded), "the batch's time was over", clipperv1.ErrorReason_ERROR_REASON_DEADLINE
	}
	return e
}
