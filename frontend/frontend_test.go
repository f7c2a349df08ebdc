// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/telemetry"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	int64s   = clipperv1.DataType_DATA_TYPE_INT64
	float32s = clipperv1.DataType_DATA_TYPE_FLOAT32
	float64s = clipperv1.DataType_DATA_TYPE_FLOAT64
	text     = clipperv1.DataType_DATA_TYPE_STRING
	blob     = clipperv1.DataType_DATA_TYPE_BYTES
)

// fakeSelector answers as each test says.
type fakeSelector struct {
	query    func(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error)
	predict  func(model *internalv1.ModelReference) (*clipperv1.ModelPrediction, error)
	feedback func(ctx context.Context, f *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error)

	mu      sync.Mutex
	apps    []*clipperv1.Application
	changed chan struct{} // Closed when apps are set.
	broken  chan struct{} // Closed when watches are to end.
	watches int
}

func newSelector(apps ...*clipperv1.Application) *fakeSelector {
	return &fakeSelector{apps: apps, changed: make(chan struct{}), broken: make(chan struct{})}
}

func (f *fakeSelector) Query(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
	if f.query == nil {
		return echo(ctx, application, userContext, in)
	}
	return f.query(ctx, application, userContext, in)
}

// Predict answers with the input, as the version that was asked.
func (f *fakeSelector) Predict(_ context.Context, model *internalv1.ModelReference, in *tensor.Input) (*clipperv1.ModelPrediction, error) {
	if f.predict != nil {
		return f.predict(model)
	}
	tensors, err := in.Tensors()
	return &clipperv1.ModelPrediction{Model: model.Model, Version: model.Version, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: tensors}, err
}

func (f *fakeSelector) Feedback(ctx context.Context, r *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error) {
	if f.feedback == nil {
		return &clipperv1.FeedbackResponse{}, nil
	}
	return f.feedback(ctx, r, in)
}

func (f *fakeSelector) WatchApplications(ctx context.Context, update func([]*clipperv1.Application)) error {
	f.mu.Lock()
	f.watches++
	broken := f.broken
	f.mu.Unlock()
	for {
		f.mu.Lock()
		apps, changed := f.apps, f.changed
		f.mu.Unlock()
		if apps == nil {
			return status.Error(codes.Unavailable, "no selector")
		}
		update(apps)
		select {
		case <-changed:
		case <-broken:
			return status.Error(codes.Unavailable, "the link broke")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeSelector) set(apps ...*clipperv1.Application) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.apps = append([]*clipperv1.Application{}, apps...) // Not nil, which is no selector.
	close(f.changed)
	f.changed = make(chan struct{})
}

// echo answers with the input.
func echo(_ context.Context, _, _ string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
	tensors, err := in.Tensors()
	return &clipperv1.QueryResponse{Outputs: tensors, Confidence: 1}, err
}

// digits is an application with an input of two numbers and labels as output.
func digits() *clipperv1.Application {
	return &clipperv1.Application{
		Name:             "digits",
		Inputs:           []*clipperv1.TensorSpec{{DataType: float32s, Shape: []int64{2}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: int64s},
		LatencyObjective: durationpb.New(100 * time.Millisecond),
		DefaultOutput:    structpb.NewNumberValue(-1),
		Etag:             "1",
	}
}

func application(name string, kind clipperv1.OutputKind, defaultOutput any, inputs ...*clipperv1.TensorSpec) *clipperv1.Application {
	value, err := structpb.NewValue(defaultOutput)
	if err != nil {
		panic(err)
	}
	return &clipperv1.Application{Name: name, Inputs: inputs, Output: &clipperv1.OutputSpec{Kind: kind}, DefaultOutput: value, LatencyObjective: durationpb.New(time.Minute)}
}

func testConfig() frontend.Config {
	return frontend.Config{
		MaxBody: 64 * config.KiB, BodyTimeout: 5 * time.Second, MaxInput: 4 * config.KiB, MaxElements: 100,
		BatchConcurrency: 8, StreamInFlight: 4, FeedbackTimeout: time.Second,
	}
}

// fixture is a frontend with everything around it.
type fixture struct {
	service  *frontend.Service
	selector *fakeSelector
	admin    *fakeAdmin
	conn     *inprocess.Conn // To all its services.
	query    http.Handler
	adminAPI http.Handler
	draining chan struct{}
	registry *prometheus.Registry
}

func start(t testing.TB, selector *fakeSelector, change ...func(*frontend.Config)) *fixture {
	t.Helper()
	cfg := testConfig()
	for _, c := range change {
		c(&cfg)
	}
	f := &fixture{selector: selector, admin: &fakeAdmin{}, draining: make(chan struct{}), registry: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	behind := inprocess.New(nil, nil)
	clipperv1.RegisterApplicationServiceServer(behind, f.admin)
	clipperv1.RegisterModelServiceServer(behind, f.admin)
	var err error
	f.service, err = frontend.New(cfg, frontend.Deps{
		Selector:     selector,
		Applications: clipperv1.NewApplicationServiceClient(behind),
		Models:       clipperv1.NewModelServiceClient(behind),
		Draining:     f.draining,
		Logger:       log,
		Registerer:   f.registry,
	})
	require.NoError(t, err)
	rpc, err := telemetry.NewRPC(log, f.registry)
	require.NoError(t, err)
	f.conn = inprocess.New([]grpc.UnaryServerInterceptor{rpc.Unary}, []grpc.StreamServerInterceptor{rpc.Stream})
	f.service.RegisterQuery(f.conn)
	f.service.RegisterAdmin(f.conn)
	clipperv1.RegisterKeyServiceServer(f.conn, fakeKeys{})
	f.query, err = frontend.NewQueryHandler(cfg, f.conn)
	require.NoError(t, err)
	f.adminAPI, err = frontend.NewAdminHandler(cfg, f.conn)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	if selector.apps != nil {
		eventually(t, func() bool { return f.service.Ready(t.Context()) == nil })
	}
	return f
}

// fakeKeys is the service of keys, which is not the frontend's. It says when it is reached.
type fakeKeys struct {
	clipperv1.UnimplementedKeyServiceServer
}

var errReached = status.Error(codes.Aborted, "reached")

func (fakeKeys) CreateKey(context.Context, *clipperv1.CreateKeyRequest) (*clipperv1.CreateKeyResponse, error) {
	return nil, errReached
}

func (fakeKeys) GetKey(context.Context, *clipperv1.GetKeyRequest) (*clipperv1.GetKeyResponse, error) {
	return nil, errReached
}

func (fakeKeys) ListKeys(context.Context, *clipperv1.ListKeysRequest) (*clipperv1.ListKeysResponse, error) {
	return nil, errReached
}

func (fakeKeys) RotateKey(context.Context, *clipperv1.RotateKeyRequest) (*clipperv1.RotateKeyResponse, error) {
	return nil, errReached
}

func (fakeKeys) RevokeKey(context.Context, *clipperv1.RevokeKeyRequest) (*clipperv1.RevokeKeyResponse, error) {
	return nil, errReached
}

// eventually polls for what happens on another goroutine without a signal.
func eventually(t testing.TB, met func() bool) {
	t.Helper()
	require.Eventually(t, met, 10*time.Second, time.Millisecond)
}

// dial serves the frontend on a real gRPC server and returns a connection to it.
func (f *fixture) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	f.service.RegisterQuery(server)
	f.service.RegisterAdmin(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		<-served
	})
	return conn
}

// call sends a REST request.
func call(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// fakeAdmin is both services for administration. What it is asked is kept.
type fakeAdmin struct {
	clipperv1.UnimplementedApplicationServiceServer
	clipperv1.UnimplementedModelServiceServer
	handle func(ctx context.Context, req any) (any, error)
}

func handled[Res any](ctx context.Context, f *fakeAdmin, req any) (*Res, error) {
	if f.handle == nil {
		return new(Res), nil
	}
	res, err := f.handle(ctx, req)
	if err != nil {
		return nil, err
	}
	return res.(*Res), nil
}

func (f *fakeAdmin) CreateApplication(ctx context.Context, r *clipperv1.CreateApplicationRequest) (*clipperv1.CreateApplicationResponse, error) {
	return handled[clipperv1.CreateApplicationResponse](ctx, f, r)
}

func (f *fakeAdmin) GetApplication(ctx context.Context, r *clipperv1.GetApplicationRequest) (*clipperv1.GetApplicationResponse, error) {
	return handled[clipperv1.GetApplicationResponse](ctx, f, r)
}

func (f *fakeAdmin) ListApplications(ctx context.Context, r *clipperv1.ListApplicationsRequest) (*clipperv1.ListApplicationsResponse, error) {
	return handled[clipperv1.ListApplicationsResponse](ctx, f, r)
}

func (f *fakeAdmin) UpdateApplication(ctx context.Context, r *clipperv1.UpdateApplicationRequest) (*clipperv1.UpdateApplicationResponse, error) {
	return handled[clipperv1.UpdateApplicationResponse](ctx, f, r)
}

func (f *fakeAdmin) DeleteApplication(ctx context.Context, r *clipperv1.DeleteApplicationRequest) (*clipperv1.DeleteApplicationResponse, error) {
	return handled[clipperv1.DeleteApplicationResponse](ctx, f, r)
}

func (f *fakeAdmin) GetSelectionState(ctx context.Context, r *clipperv1.GetSelectionStateRequest) (*clipperv1.GetSelectionStateResponse, error) {
	return handled[clipperv1.GetSelectionStateResponse](ctx, f, r)
}

func (f *fakeAdmin) ExplainSelection(ctx context.Context, r *clipperv1.ExplainSelectionRequest) (*clipperv1.ExplainSelectionResponse, error) {
	return handled[clipperv1.ExplainSelectionResponse](ctx, f, r)
}

func (f *fakeAdmin) GetCanary(ctx context.Context, r *clipperv1.GetCanaryRequest) (*clipperv1.GetCanaryResponse, error) {
	return handled[clipperv1.GetCanaryResponse](ctx, f, r)
}

func (f *fakeAdmin) GetModelCorrelations(ctx context.Context, r *clipperv1.GetModelCorrelationsRequest) (*clipperv1.GetModelCorrelationsResponse, error) {
	return handled[clipperv1.GetModelCorrelationsResponse](ctx, f, r)
}

func (f *fakeAdmin) DeployModel(ctx context.Context, r *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	return handled[clipperv1.DeployModelResponse](ctx, f, r)
}

func (f *fakeAdmin) GetModel(ctx context.Context, r *clipperv1.GetModelRequest) (*clipperv1.GetModelResponse, error) {
	return handled[clipperv1.GetModelResponse](ctx, f, r)
}

func (f *fakeAdmin) ListModels(ctx context.Context, r *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	return handled[clipperv1.ListModelsResponse](ctx, f, r)
}

func (f *fakeAdmin) GetModelVersion(ctx context.Context, r *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	return handled[clipperv1.GetModelVersionResponse](ctx, f, r)
}

func (f *fakeAdmin) GetBatching(ctx context.Context, r *clipperv1.GetBatchingRequest) (*clipperv1.GetBatchingResponse, error) {
	return handled[clipperv1.GetBatchingResponse](ctx, f, r)
}

func (f *fakeAdmin) GetModelRepository(ctx context.Context, r *clipperv1.GetModelRepositoryRequest) (*clipperv1.GetModelRepositoryResponse, error) {
	return handled[clipperv1.GetModelRepositoryResponse](ctx, f, r)
}

// ReadLogs sends what handle returns, a list, and then goes on until the caller ends it if the log is followed.
func (f *fakeAdmin) ReadLogs(r *clipperv1.ReadLogsRequest, stream grpc.ServerStreamingServer[clipperv1.ReadLogsResponse]) error {
	lines, err := f.handle(stream.Context(), r)
	list, _ := lines.([]*clipperv1.ReadLogsResponse)
	for _, l := range list {
		if err := stream.Send(l); err != nil {
			return err
		}
	}
	if err == nil && r.Follow {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	return err
}

func (f *fakeAdmin) UpdateModelVersion(ctx context.Context, r *clipperv1.UpdateModelVersionRequest) (*clipperv1.UpdateModelVersionResponse, error) {
	return handled[clipperv1.UpdateModelVersionResponse](ctx, f, r)
}

func (f *fakeAdmin) SetCurrentVersion(ctx context.Context, r *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error) {
	return handled[clipperv1.SetCurrentVersionResponse](ctx, f, r)
}

func (f *fakeAdmin) DeleteModelVersion(ctx context.Context, r *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error) {
	return handled[clipperv1.DeleteModelVersionResponse](ctx, f, r)
}

func (f *fakeAdmin) DeleteModel(ctx context.Context, r *clipperv1.DeleteModelRequest) (*clipperv1.DeleteModelResponse, error) {
	return handled[clipperv1.DeleteModelResponse](ctx, f, r)
}

func TestConfig(t *testing.T) {
	require.NoError(t, testConfig().Validate())
	for name, spoil := range map[string]func(*frontend.Config){
		"max-body":          func(c *frontend.Config) { c.MaxBody = 0 },
		"body-timeout":      func(c *frontend.Config) { c.BodyTimeout = 0 },
		"max-input":         func(c *frontend.Config) { c.MaxInput = -1 },
		"max-elements":      func(c *frontend.Config) { c.MaxElements = 0 },
		"batch-concurrency": func(c *frontend.Config) { c.BatchConcurrency = 0 },
		"stream-in-flight":  func(c *frontend.Config) { c.StreamInFlight = 0 },
		"feedback-timeout":  func(c *frontend.Config) { c.FeedbackTimeout = 0 },
	} {
		cfg := testConfig()
		spoil(&cfg)
		require.ErrorContains(t, cfg.Validate(), name)
		_, err := frontend.New(cfg, frontend.Deps{})
		require.ErrorContains(t, err, name)
		_, err = frontend.NewQueryHandler(cfg, nil)
		require.ErrorContains(t, err, name)
	}
}

// Until the selector has been reached once nothing is known; after that, a broken link changes nothing.
func TestSnapshot(t *testing.T) {
	selector := newSelector()
	f := start(t, selector)
	client := clipperv1.NewQueryServiceClient(f.conn)
	query := &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]")}
	require.ErrorContains(t, f.service.Ready(t.Context()), "has not sent its applications")
	_, err := client.Query(t.Context(), query)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, apierror.Reason(err))

	selector.set(digits())
	eventually(t, func() bool { return f.service.Ready(t.Context()) == nil })
	_, err = client.Query(t.Context(), query)
	require.NoError(t, err)

	selector.mu.Lock()
	before := selector.watches
	close(selector.broken)
	selector.broken = make(chan struct{})
	selector.mu.Unlock()
	eventually(t, func() bool {
		selector.mu.Lock()
		defer selector.mu.Unlock()
		return selector.watches > before
	})
	_, err = client.Query(t.Context(), query)
	require.NoError(t, err)

	selector.set()
	eventually(t, func() bool {
		_, err := client.Query(t.Context(), query)
		return status.Code(err) == codes.NotFound
	})
}
