// SPDX-License-Identifier: Apache-2.0

// Package container is the runtime of model containers written in Go. It does everything but the
// prediction: server, stream, health, deadlines, errors of batches and rows, graceful stop.
//
//	func main() {
//		container.Main(func(path string) (container.Model, error) { return load(path) })
//	}
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	// Describe says what the model is. It is called once, when the model is loaded. A parallel
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
	// TLS is how the container is reached over TCP; not for a unix socket.
	TLS TLS
	// RegisterTLS and the files (PEM) below it are how Clipper is called to register: with TLS if one of them is
	// set. RegisterCA are the CAs to trust instead of the system's; RegisterCert and RegisterKey are presented
	// to a listener that asks for them.
	RegisterTLS                           bool
	RegisterCA, RegisterCert, RegisterKey string
	// RegisterToken is the token to register with, where Clipper asks for one; RegisterTokenFile is a file with
	// it, which is read at each registration and wins.
	RegisterToken, RegisterTokenFile string
	// ExitWithParent is a pipe whose end means that the one who started the container is gone: the
	// container stops then. May be nil.
	ExitWithParent io.Reader
	// ModelPath is the saved model, which a Loader is given.
	ModelPath string
	// MetricsAddress is the host:port at which Prometheus finds /metrics; "": nowhere.
	MetricsAddress string
	// MaxMessageBytes is the largest request; a larger one ends the stream. Default 64 MiB.
	MaxMessageBytes int
	// Logger is where the container logs. Default: lines of text on standard error.
	Logger *slog.Logger
	// GracePeriod is the time that batches have to finish when the container is to stop. Default 30 s.
	GracePeriod time.Duration
}

// ConfigFromEnvironment reads the variables of docs/containers.md: those that a launcher sets, and those
// of a container that registers by itself. Main reads flags too.
func ConfigFromEnvironment() Config {
	cfg := Config{
		Address:   os.Getenv("CLIPPER_CONTAINER_ADDRESS"),
		Model:     os.Getenv("CLIPPER_MODEL_NAME"),
		Version:   os.Getenv("CLIPPER_MODEL_VERSION"),
		ModelPath: os.Getenv("CLIPPER_MODEL_PATH"),

		MetricsAddress:   os.Getenv("CLIPPER_METRICS_ADDRESS"),
		RegisterAddress:  os.Getenv("CLIPPER_REGISTER_ADDRESS"),
		AdvertiseAddress: os.Getenv("CLIPPER_ADVERTISE_ADDRESS"),

		TLS: TLS{Cert: os.Getenv("CLIPPER_CONTAINER_TLS_CERT"), Key: os.Getenv("CLIPPER_CONTAINER_TLS_KEY"), ClientCA: os.Getenv("CLIPPER_CONTAINER_TLS_CLIENT_CA")},

		RegisterTLS:       os.Getenv("CLIPPER_REGISTER_TLS") == "1",
		RegisterCA:        os.Getenv("CLIPPER_REGISTER_TLS_CA"),
		RegisterCert:      os.Getenv("CLIPPER_REGISTER_TLS_CERT"),
		RegisterKey:       os.Getenv("CLIPPER_REGISTER_TLS_KEY"),
		RegisterToken:     os.Getenv("CLIPPER_REGISTER_TOKEN"),
		RegisterTokenFile: os.Getenv("CLIPPER_REGISTER_TOKEN_FILE"),
	}
	if os.Getenv("CLIPPER_EXIT_WITH_PARENT") == "1" {
		cfg.ExitWithParent = os.Stdin
	}
	return cfg
}

// Run listens at the configured address and serves the model until ctx ends; then it answers the
// batches that it has, ends the streams and returns nil.
func Run(ctx context.Context, cfg Config, m Model) error {
	return Load(ctx, cfg, loaded(m))
}

// Loader returns the model that is saved at a path. Its error means that this will never work, unless it is
// a timeout, a lost connection or too little memory.
type Loader func(path string) (Model, error)

func loaded(m Model) Loader { return func(string) (Model, error) { return m, nil } }

// LoadError says that the model cannot be loaded.
type LoadError struct {
	// Path is Config.ModelPath.
	Path string
	err  error
}

func (e *LoadError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("cannot load the model: %v", e.err)
	}
	return fmt.Sprintf("cannot load the model %s: %v", e.Path, e.err)
}

// Unwrap returns the cause.
func (e *LoadError) Unwrap() error { return e.err }

// Load is Run with a model that is loaded while the container listens and is not ready. When ctx ends
// first, it does not wait for the loader.
func Load(ctx context.Context, cfg Config, load Loader) error {
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
	return serve(ctx, cfg, l, load)
}

// Serve is Run with a listener, which it closes.
func Serve(ctx context.Context, cfg Config, l net.Listener, m Model) error {
	return serve(ctx, cfg, l, loaded(m))
}

func serve(ctx context.Context, cfg Config, l net.Listener, load Loader) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if cfg.ExitWithParent != nil {
		go func() {
			_, _ = io.Copy(io.Discard, cfg.ExitWithParent)
			stop()
		}()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if cfg.MaxMessageBytes == 0 {
		cfg.MaxMessageBytes = defaultMessageBytes
	}
	if cfg.GracePeriod == 0 {
		cfg.GracePeriod = DefaultGracePeriod
	}
	s := &server{cfg: cfg, draining: make(chan struct{}), metrics: newMetrics()}
	if cfg.MetricsAddress != "" {
		end, err := s.metrics.serve(ctx, cfg.MetricsAddress)
		if err != nil {
			_ = l.Close()
			return fmt.Errorf("container: metrics: %w", err)
		}
		defer end()
	}
	options, err := cfg.options(l.Addr().Network())
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("container: %w", err)
	}
	g := grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(cfg.MaxMessageBytes),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes),
		grpc.StreamInterceptor(s.endWatches),
	)...)
	h := health.NewServer()
	h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	clipperv1.RegisterModelContainerServiceServer(g, s)
	grpc_health_v1.RegisterHealthServer(g, h)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	err = s.live(ctx, l, h, load, served)
	s.metrics.ready.Set(0)
	h.Shutdown()
	close(s.draining)
	force := time.AfterFunc(cfg.GracePeriod, g.Stop)
	defer force.Stop()
	g.GracefulStop()
	return err
}

// endWatches ends the streams that watch the health when the container drains: whoever watches would keep
// it from ending.
func (s *server) endWatches(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if info.FullMethod != grpc_health_v1.Health_Watch_FullMethodName {
		return handle(service, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return handle(service, watch{stream, ctx})
}

// watch is a stream with another context.
type watch struct {
	grpc.ServerStream
	ctx context.Context
}

func (w watch) Context() context.Context { return w.ctx }

// live loads the model, registers the container, and returns when ctx ends or something fails.
func (s *server) live(ctx context.Context, l net.Listener, h *health.Server, load Loader, served <-chan error) error {
	ready := make(chan error, 1)
	go func() { ready <- s.load(load) }()
	select {
	case err := <-served:
		return fmt.Errorf("container: %w", err)
	case <-ctx.Done():
		return nil
	case err := <-ready:
		if err != nil {
			return err
		}
	}
	d := s.model.Load().description
	var registered chan error
	if s.cfg.RegisterAddress != "" {
		r, err := newRegistration(s.cfg, d, l)
		if err != nil {
			return fmt.Errorf("container: %w", err)
		}
		defer r.close()
		registered = make(chan error, 1)
		go func() { registered <- r.keep(ctx) }()
	}
	h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	s.metrics.ready.Set(1)
	s.cfg.Logger.Info("serving", "address", l.Addr(), "model", d.Model, "version", d.Version)
	select {
	case err := <-served:
		return fmt.Errorf("container: %w", err)
	case err := <-registered:
		return err
	case <-ctx.Done():
		s.cfg.Logger.Info("draining")
		if registered != nil { // It leaves first, and then stops serving.
			return <-registered
		}
		return nil
	}
}

// load makes the model ready.
func (s *server) load(load Loader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("the loader panicked", "cause", p, "stack", string(debug.Stack()))
			err = &LoadError{Path: s.cfg.ModelPath, err: fmt.Errorf("the loader panicked: %v", p)}
		}
	}()
	m, err := load(s.cfg.ModelPath)
	if err == nil && m == nil {
		err = errors.New("the loader returned no model")
	}
	if err != nil {
		return &LoadError{Path: s.cfg.ModelPath, err: err}
	}
	d := m.Describe()
	if d.Model == "" {
		d.Model = s.cfg.Model
	}
	if d.Version == "" {
		d.Version = s.cfg.Version
	}
	if d.MaxInFlight == 0 {
		d.MaxInFlight = defaultInFlight
	}
	if d.MaxMessageBytes == 0 || d.MaxMessageBytes > uint64(s.cfg.MaxMessageBytes) {
		d.MaxMessageBytes = uint64(s.cfg.MaxMessageBytes)
	}
	served := &servedModel{Model: m, description: d, workers: 1}
	if _, served.parallel = m.(ParallelModel); served.parallel {
		served.workers = int(d.MaxInFlight)
	}
	s.model.Store(served)
	return nil
}

// server implements the service. Its model is nil until it is loaded.
type server struct {
	clipperv1.UnimplementedModelContainerServiceServer
	cfg      Config
	metrics  *metrics
	model    atomic.Pointer[servedModel]
	draining chan struct{}
}

type servedModel struct {
	Model
	description *clipperv1.DescribeResponse
	workers     int        // of one stream
	turn        sync.Mutex // held during Predict by a model that is not parallel
	parallel    bool
}

var errLoading = status.Error(codes.Unavailable, "the model is being loaded")

// Describe implements clipperv1.ModelContainerServiceServer.
func (s *server) Describe(context.Context, *clipperv1.DescribeRequest) (*clipperv1.DescribeResponse, error) {
	if m := s.model.Load(); m != nil {
		return m.description, nil
	}
	return nil, errLoading
}

// Predict implements clipperv1.ModelContainerServiceServer. Each worker of the stream receives,
// predicts and sends in turn, so that a batch changes goroutines at no point; the batches of a
// model that is not parallel wait in the transport.
func (s *server) Predict(stream grpc.BidiStreamingServer[clipperv1.PredictRequest, clipperv1.PredictResponse]) error {
	m := s.model.Load()
	if m == nil {
		return errLoading
	}
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
			resp := s.predict(stream.Context(), m, req)
			send.Lock()
			err = stream.Send(resp)
			send.Unlock()
			working.RUnlock()
			if err != nil {
				return err
			}
		}
	}
	ended := make(chan error, m.workers)
	for range m.workers {
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
func (s *server) predict(ctx context.Context, m *servedModel, req *clipperv1.PredictRequest) *clipperv1.PredictResponse {
	if req.TimeoutMicros > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(req.TimeoutMicros, uint64(math.MaxInt64/time.Microsecond)))*time.Microsecond)
		defer cancel()
	}
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	resp := &clipperv1.PredictResponse{Id: req.Id}
	if err := checkRequest(req, m.description); err != nil {
		s.metrics.batches.WithLabelValues("refused").Inc()
		resp.Error = err.toProto()
		return resp
	}
	if !m.parallel {
		m.turn.Lock()
		defer m.turn.Unlock()
	}
	if err := ctx.Err(); err != nil {
		s.metrics.batches.WithLabelValues("refused").Inc()
		resp.Error = toProto(err)
		return resp
	}
	begin := time.Now()
	result, err := s.call(ctx, m, &Batch{Rows: int(req.Rows), Inputs: req.Inputs})
	took := time.Since(begin)
	resp.PredictMicros = uint64(took.Microseconds())
	s.metrics.predicted(int(req.Rows), took, result, err)
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
func (s *server) call(ctx context.Context, m Model, b *Batch) (r *Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("the model panicked", "cause", p, "stack", string(debug.Stack()))
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
	} else if request := (*requestError)(nil); errors.As(err, &request) {
		return request.toProto()
	} else if errors.Is(err, context.DeadlineExceeded) {
		e.Code, e.Message, e.Reason = uint32(codes.DeadlineExceeded), "the batch's time was over", clipperv1.ErrorReason_ERROR_REASON_DEADLINE
	}
	return e
}
