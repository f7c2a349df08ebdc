// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// server is a fake of the public services. It records what it was asked.
type server struct {
	clipperv1.UnimplementedModelServiceServer
	clipperv1.UnimplementedApplicationServiceServer
	clipperv1.UnimplementedQueryServiceServer
	clipperv1.UnimplementedFeedbackServiceServer

	address string
	health  *health.Server

	mu       sync.Mutex
	models   map[string]*clipperv1.Model
	apps     map[string]*clipperv1.Application
	polls    int
	last     proto.Message
	batches  []int
	appsDown bool
	waiting  chan struct{} // Closed when the application "wait" is asked.
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{models: map[string]*clipperv1.Model{}, apps: map[string]*clipperv1.Application{}, health: health.NewServer(), waiting: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = l.Addr().String()
	g := grpc.NewServer()
	clipperv1.RegisterModelServiceServer(g, s)
	clipperv1.RegisterApplicationServiceServer(g, s)
	clipperv1.RegisterQueryServiceServer(g, s)
	clipperv1.RegisterFeedbackServiceServer(g, s)
	healthpb.RegisterHealthServer(g, s.health)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		require.NoError(t, <-done)
	})
	return s
}

func (s *server) record(m proto.Message) func() {
	s.mu.Lock()
	s.last = m
	return s.mu.Unlock
}

// asked returns the last request.
func (s *server) asked() proto.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func replica(id string, state clipperv1.ReplicaState, message string) *clipperv1.Replica {
	return &clipperv1.Replica{Id: id, State: state, Message: message, Address: "unix:/run/" + id}
}

func (s *server) DeployModel(_ context.Context, req *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	defer s.record(req)()
	v := proto.CloneOf(req.GetVersion())
	m := s.models[v.GetModel()]
	if m == nil {
		m = &clipperv1.Model{Name: v.GetModel(), CurrentVersion: v.GetVersion()}
		s.models[v.GetModel()] = m
	}
	for _, old := range m.GetVersions() {
		if old.GetVersion() == v.GetVersion() {
			return nil, apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version", "model %s has version %s already", v.GetModel(), v.GetVersion())
		}
	}
	if v.Replicas == nil {
		v.Replicas = proto.Uint32(1)
	}
	v.Current = m.CurrentVersion == v.GetVersion()
	v.State = clipperv1.ModelState_MODEL_STATE_STARTING
	v.Batching = &clipperv1.Batching{Policy: "slo", MaxBatchRows: 4096}
	if v.GetModel() == "spread" { // Over two instances, one replica of which nobody here has started.
		there := replica("10.0.0.9-9000", clipperv1.ReplicaState_REPLICA_STATE_READY, "")
		v.Homes, v.ReplicaStatus = 2, []*clipperv1.Replica{replica("0", clipperv1.ReplicaState_REPLICA_STATE_READY, ""), there}
		v.ReplicaStatus[0].Instance, there.Instance, there.Registered = "10.0.0.1:1367", "10.0.0.2:1367", true
	}
	m.Versions = append(m.Versions, v)
	if req.KeepVersions != nil {
		m.KeepVersions = req.KeepVersions
	}
	return &clipperv1.DeployModelResponse{Version: v}, nil
}

// GetModelVersion makes progress at each call: "bad" models fail, "slow" ones never start.
func (s *server) GetModelVersion(_ context.Context, req *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polls++
	for _, v := range s.models[req.GetModel()].GetVersions() {
		if v.GetVersion() != req.GetVersion() {
			continue
		}
		v = proto.CloneOf(v)
		switch {
		case req.GetModel() == "slow" || s.polls < 2:
		case req.GetModel() == "bad":
			v.State, v.StateMessage = clipperv1.ModelState_MODEL_STATE_FAILED, "the model file cannot be read"
			v.ReplicaStatus = []*clipperv1.Replica{replica("0", clipperv1.ReplicaState_REPLICA_STATE_FAILED, "exit code 78; the last lines of its log:\nTraceback (most recent call last):\nEOFError\n")}
		case v.GetReplicas() == 0:
			v.State = clipperv1.ModelState_MODEL_STATE_STOPPED
		default:
			v.State = clipperv1.ModelState_MODEL_STATE_READY
			for i := range v.GetReplicas() {
				v.ReplicaStatus = append(v.ReplicaStatus, replica(string(rune('0'+i)), clipperv1.ReplicaState_REPLICA_STATE_READY, ""))
			}
		}
		return &clipperv1.GetModelVersionResponse{Version: v}, nil
	}
	return nil, modelNotFound(req.GetModel())
}

func modelNotFound(name string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model", "no model is called %q", name)
}

func (s *server) GetModel(_ context.Context, req *clipperv1.GetModelRequest) (*clipperv1.GetModelResponse, error) {
	defer s.record(req)()
	if m := s.models[req.GetModel()]; m != nil {
		return &clipperv1.GetModelResponse{Model: m}, nil
	}
	return nil, modelNotFound(req.GetModel())
}

// ListModels returns pages of one.
func (s *server) ListModels(_ context.Context, req *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	defer s.record(req)()
	names := slices.Sorted(maps.Keys(s.models))
	for i, name := range names {
		if name > req.GetPageToken() {
			page := &clipperv1.ListModelsResponse{Models: []*clipperv1.Model{s.models[name]}}
			if i < len(names)-1 {
				page.NextPageToken = name
			}
			return page, nil
		}
	}
	return &clipperv1.ListModelsResponse{}, nil
}

func (s *server) UpdateModelVersion(_ context.Context, req *clipperv1.UpdateModelVersionRequest) (*clipperv1.UpdateModelVersionResponse, error) {
	defer s.record(req)()
	for _, v := range s.models[req.GetModel()].GetVersions() {
		if v.GetVersion() == req.GetVersion() {
			if req.Replicas != nil {
				v.Replicas = req.Replicas
			}
			if req.Batching != nil {
				v.Batching = req.Batching
			}
			if req.Autoscaling != nil {
				v.Autoscaling = req.Autoscaling
			}
			return &clipperv1.UpdateModelVersionResponse{Version: v}, nil
		}
	}
	return nil, modelNotFound(req.GetModel())
}

func (s *server) GetBatching(_ context.Context, req *clipperv1.GetBatchingRequest) (*clipperv1.GetBatchingResponse, error) {
	defer s.record(req)()
	if s.models[req.GetModel()] == nil {
		return nil, modelNotFound(req.GetModel())
	}
	return &clipperv1.GetBatchingResponse{
		Model: req.GetModel(), Version: req.GetVersion(),
		Batching: &clipperv1.Batching{Policy: "slo", MaxBatchRows: 4096, MaxDelay: durationpb.New(2 * time.Millisecond)},
		Queue: &clipperv1.QueueStatus{
			Rows: 12, InFlightRows: 380, Delay: durationpb.New(3 * time.Millisecond), DrainRate: 43210.5, Overloaded: true,
			Dropped: map[string]uint64{"overloaded": 7, "no_replica": 1},
		},
		Replicas: []*clipperv1.ReplicaBatching{{
			Replica: "0", FixedMicros: 1000, RowMicros: 20, TailMicros: 9900, HopMicros: 150, Observations: 812, LargestRows: 400,
			TargetRows: 350, InFlightBatches: 1, InFlightRows: 380,
			Latencies: []*clipperv1.LatencyPoint{{Rows: 300, Observations: 32, ObservedMicros: 7100, ExpectedMicros: 7000, TailMicros: 8800}},
			Decisions: []*clipperv1.BatchDecision{
				{Rows: 380, Waiting: 392, Slack: durationpb.New(10 * time.Millisecond), ExpectedMicros: 9950, Why: "more would make the most urgent query late"},
				{Rows: 1, Waiting: 1, Why: "all that waited"},
			},
		}, {Replica: "1"}},
		Scaling: &clipperv1.ScalingStatus{
			Autoscaling: &clipperv1.Autoscaling{MaxReplicas: 4, TargetLoad: 0.85, ScaleDownDelay: durationpb.New(6 * time.Second), IdleTimeout: durationpb.New(5 * time.Minute)},
			Replicas:    4, NeededReplicas: 6, ReadyReplicas: 2, ArrivalRate: 812.25, Burstiness: 1.4, TimeBudget: durationpb.New(50 * time.Millisecond),
			BatchRows: 12, ReplicaRate: 240, LoadRatio: 2.904, StartTime: durationpb.New(3 * time.Second),
			Why: "812.2 rows/s need 6", Held: "6 replicas are needed and 4 is the maximum",
			Changes: []*clipperv1.ScalingChange{{Time: timestamppb.New(time.Unix(1800000000, 0)), From: 2, To: 4, Why: "812.2 rows/s need 6"}},
		},
	}, nil
}

// GetModelRepository answers of a repository when the model "stored" is deployed from it.
func (s *server) GetModelRepository(context.Context, *clipperv1.GetModelRepositoryRequest) (*clipperv1.GetModelRepositoryResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.models["stored"] == nil {
		return &clipperv1.GetModelRepositoryResponse{}, nil
	}
	return &clipperv1.GetModelRepositoryResponse{
		Location: "s3://models/team", Failure: "the bucket cannot be listed: Access Denied.",
		Versions: []*clipperv1.RepositoryVersion{
			{Model: "stored", Version: "3", State: clipperv1.RepositoryState_REPOSITORY_STATE_FAILED, Message: "stored/3/clipper.yaml: line 1: replica is no setting"},
			{Model: "stored", Version: "2", State: clipperv1.RepositoryState_REPOSITORY_STATE_WAITING, Message: "its files are deployed when they are the same at the next look"},
			{Model: "stored", Version: "1", State: clipperv1.RepositoryState_REPOSITORY_STATE_DEPLOYED},
			{Model: "typo", State: clipperv1.RepositoryState_REPOSITORY_STATE_FAILED, Message: "typo/clipper.yaml: line 1: framwork is no setting"},
		},
	}, nil
}

func (s *server) ReadLogs(req *clipperv1.ReadLogsRequest, stream grpc.ServerStreamingServer[clipperv1.ReadLogsResponse]) error {
	defer s.record(req)()
	if s.models[req.GetModel()] == nil {
		return modelNotFound(req.GetModel())
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, line := range []*clipperv1.ReadLogsResponse{
		{Replica: "0", Text: "serving"}, {Replica: "1", Text: "\x1b[31mred\x07 alert"}, {Replica: "0", Text: "ünïcode\tand tabs"},
	} {
		line.Time = timestamppb.New(at.Add(time.Duration(i) * time.Second))
		if req.GetReplica() != "" && req.GetReplica() != line.Replica || !line.Time.AsTime().After(req.GetSince().AsTime()) {
			continue
		}
		if err := stream.Send(line); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) SetCurrentVersion(_ context.Context, req *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error) {
	defer s.record(req)()
	m := s.models[req.GetModel()]
	if m == nil {
		return nil, modelNotFound(req.GetModel())
	}
	m.CurrentVersion = req.GetVersion()
	for _, v := range m.GetVersions() {
		v.Current = v.GetVersion() == req.GetVersion()
	}
	return &clipperv1.SetCurrentVersionResponse{Model: m}, nil
}

func (s *server) DeleteModelVersion(_ context.Context, req *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error) {
	defer s.record(req)()
	return &clipperv1.DeleteModelVersionResponse{}, nil
}

func (s *server) DeleteModel(_ context.Context, req *clipperv1.DeleteModelRequest) (*clipperv1.DeleteModelResponse, error) {
	defer s.record(req)()
	if s.models[req.GetModel()] == nil {
		return nil, modelNotFound(req.GetModel())
	}
	delete(s.models, req.GetModel())
	return &clipperv1.DeleteModelResponse{}, nil
}

func appNotFound(name string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application", "no application is called %q", name)
}

func (s *server) CreateApplication(_ context.Context, req *clipperv1.CreateApplicationRequest) (*clipperv1.CreateApplicationResponse, error) {
	defer s.record(req)()
	a := proto.CloneOf(req.GetApplication())
	if s.apps[a.GetName()] != nil {
		return nil, apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS, "application.name", "an application is called %q already", a.GetName())
	}
	if a.GetDefaultOutput() == nil {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "application.default_output", "application.default_output is missing")
	}
	if a.LatencyObjective == nil {
		a.LatencyObjective = durationpb.New(100 * time.Millisecond)
	}
	a.Etag = "1"
	s.apps[a.GetName()] = a
	return &clipperv1.CreateApplicationResponse{Application: a}, nil
}

func (s *server) GetApplication(_ context.Context, req *clipperv1.GetApplicationRequest) (*clipperv1.GetApplicationResponse, error) {
	defer s.record(req)()
	if a := s.apps[req.GetApplication()]; a != nil {
		return &clipperv1.GetApplicationResponse{Application: a}, nil
	}
	return nil, appNotFound(req.GetApplication())
}

func (s *server) ListApplications(_ context.Context, req *clipperv1.ListApplicationsRequest) (*clipperv1.ListApplicationsResponse, error) {
	defer s.record(req)()
	if s.appsDown {
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the selector cannot be reached")
	}
	response := &clipperv1.ListApplicationsResponse{}
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		response.Applications = append(response.Applications, s.apps[name])
	}
	return response, nil
}

func (s *server) UpdateApplication(_ context.Context, req *clipperv1.UpdateApplicationRequest) (*clipperv1.UpdateApplicationResponse, error) {
	defer s.record(req)()
	if req.GetApplication().GetEtag() != "1" {
		return nil, apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "application.etag", "the application has changed")
	}
	return &clipperv1.UpdateApplicationResponse{Application: req.GetApplication()}, nil
}

func (s *server) DeleteApplication(_ context.Context, req *clipperv1.DeleteApplicationRequest) (*clipperv1.DeleteApplicationResponse, error) {
	defer s.record(req)()
	if s.apps[req.GetApplication()] == nil {
		return nil, appNotFound(req.GetApplication())
	}
	delete(s.apps, req.GetApplication())
	return &clipperv1.DeleteApplicationResponse{}, nil
}

func (s *server) GetSelectionState(_ context.Context, req *clipperv1.GetSelectionStateRequest) (*clipperv1.GetSelectionStateResponse, error) {
	defer s.record(req)()
	return &clipperv1.GetSelectionStateResponse{Policy: "exp4", Observations: 12, Models: []*clipperv1.ModelSelectionState{
		{Model: "svm", Weight: 0.75, Probability: 1, Statistics: map[string]float64{"loss": 1.5, "count": 12}},
		{Model: "forest", Weight: 0.25, Probability: 1},
	}}, nil
}

func (s *server) ExplainSelection(_ context.Context, req *clipperv1.ExplainSelectionRequest) (*clipperv1.ExplainSelectionResponse, error) {
	defer s.record(req)()
	r := &clipperv1.ExplainSelectionResponse{State: &clipperv1.GetSelectionStateResponse{Policy: "exp3", Observations: 2, Models: []*clipperv1.ModelSelectionState{
		{Model: "svm", Weight: 0.75, Probability: 0.7, Statistics: map[string]float64{"loss": 1, "count": 2}},
		{Model: "forest:2", Weight: 0.25, Probability: 0.3},
	}}}
	if req.GetContext() == "nobody" {
		return r, nil
	}
	at := time.Date(2026, 1, 2, 12, 0, 0, 5e6, time.UTC)
	r.Decisions = []*clipperv1.Decision{
		{
			Id: "01", Time: timestamppb.New(at), Application: "digits", Context: "ann", Policy: "exp3", Output: structpb.NewNumberValue(7), Confidence: 0.5, Latency: durationpb.New(1234567),
			Models: []*clipperv1.DecisionModel{
				{Model: "svm", Version: "1", Propensity: 0.7, Weight: 0.75, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Prediction: structpb.NewNumberValue(7)},
				{Model: "forest:2", Version: "2", Propensity: 1, Shadow: true, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE},
			},
			Feedback: &clipperv1.DecisionFeedback{Time: timestamppb.New(at.Add(time.Minute)), Truth: structpb.NewNumberValue(7), Reward: proto.Float64(1), Losses: []*clipperv1.ModelLoss{{Model: "svm"}}},
		},
		{
			Id: "02", Time: timestamppb.New(at.Add(-time.Second)), Application: "digits", Policy: "exp3", Output: structpb.NewStringValue("none"), DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE, Latency: durationpb.New(20e6),
			Models: []*clipperv1.DecisionModel{{Model: "svm", Version: "1", Propensity: 0.7, Weight: 0.75, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Prediction: structpb.NewStringValue("a label that is much longer than anybody would like to read")}},
		},
	}
	return r, nil
}

func (s *server) GetCanary(_ context.Context, req *clipperv1.GetCanaryRequest) (*clipperv1.GetCanaryResponse, error) {
	defer s.record(req)()
	if s.apps[req.GetApplication()].GetCanary() == nil {
		return nil, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_NO_CANARY, "application", "application: %q has no canary; set its field canary", req.GetApplication())
	}
	tests := []*clipperv1.CanaryTest{
		{Metric: "loss", Canary: 0.25, Baseline: 0.0625, CanaryCount: 40, BaselineCount: 400, Lower: 0.03, Upper: 0.4, Margin: 0.02},
		{Metric: "errors", CanaryCount: 44, BaselineCount: 444, Lower: -0.01, Upper: 0.125, Margin: 0.02},
	}
	return &clipperv1.GetCanaryResponse{
		State: clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK, Tests: tests,
		Steps: []*clipperv1.CanaryStep{
			{Time: timestamppb.New(time.Unix(1800000060, 0)), From: 0.1, Reason: "worse: loss at least +0.03 (0.02 allowed)", Tests: tests},
			{Time: timestamppb.New(time.Unix(1800000000, 0)), To: 0.1, Reason: "it begins"},
		},
	}, nil
}

func (s *server) GetModelCorrelations(_ context.Context, req *clipperv1.GetModelCorrelationsRequest) (*clipperv1.GetModelCorrelationsResponse, error) {
	defer s.record(req)()
	if s.apps[req.GetApplication()] == nil {
		return &clipperv1.GetModelCorrelationsResponse{}, nil
	}
	return &clipperv1.GetModelCorrelationsResponse{
		Pairs: []*clipperv1.ModelPair{
			{First: "svm", Second: "forest:2", Observations: 1000, Correlation: proto.Float64(0.9), CorrelationLower: proto.Float64(0.89), FirstLoss: 0.125, SecondLoss: 0.25},
			{First: "svm", Second: "knn", Observations: 3},
		},
		SuggestedGroups: []*clipperv1.SuggestedGroup{{Models: []string{"svm", "forest:2"}, Correlation: 0.9}},
	}, nil
}

func label(n byte) []*clipperv1.Tensor {
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: []byte{n, 0, 0, 0, 0, 0, 0, 0}}}
}

// Query answers 7; the application "late" answers its default, "wait" never.
func (s *server) Query(ctx context.Context, req *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	defer s.record(req)()
	switch req.GetApplication() {
	case "digits":
	case "late":
		return &clipperv1.QueryResponse{
			Outputs: label(0), IsDefault: true, DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE,
			Predictions: []*clipperv1.ModelPrediction{
				{Model: "svm", Version: "1", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, Propensity: 1},
				{Model: "forest", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, Message: "no replica of forest:2 is ready", Propensity: 1},
			},
		}, nil
	case "overloaded":
		return nil, apierror.Overloaded(20*time.Millisecond, "the queue is full")
	case "wait":
		close(s.waiting)
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return nil, appNotFound(req.GetApplication())
	}
	return &clipperv1.QueryResponse{
		Outputs: label(7), Confidence: 0.75, FeedbackId: "AWx", Id: req.GetId(),
		Predictions: []*clipperv1.ModelPrediction{
			{Model: "svm", Version: "1", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: label(7), Propensity: 1, Cached: true},
			{Model: "forest", Version: "2", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: label(1), Propensity: 1, Shadow: true},
		},
	}, nil
}

// QueryBatch answers 7 to each number and refuses the rest.
func (s *server) QueryBatch(_ context.Context, req *clipperv1.QueryBatchRequest) (*clipperv1.QueryBatchResponse, error) {
	defer s.record(req)()
	s.batches = append(s.batches, len(req.GetQueries()))
	response := &clipperv1.QueryBatchResponse{}
	for _, q := range req.GetQueries() {
		r := &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Response{Response: &clipperv1.QueryResponse{Outputs: label(7), Confidence: 1}}}
		if q.GetInputJson()[0] == '"' {
			r.Result = &clipperv1.QueryResult_Error{Error: &clipperv1.Error{
				Code: uint32(codes.InvalidArgument), Reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, Message: "input: want a number", Field: "input_json",
			}}
		}
		response.Results = append(response.Results, r)
	}
	return response, nil
}

func (s *server) Feedback(_ context.Context, req *clipperv1.FeedbackRequest) (*clipperv1.FeedbackResponse, error) {
	defer s.record(req)()
	if req.GetFeedbackId() == "again" {
		return &clipperv1.FeedbackResponse{Duplicate: true}, nil
	}
	if req.GetFeedbackId() == "outage" {
		return &clipperv1.FeedbackResponse{Buffered: true, Losses: []*clipperv1.ModelLoss{{Model: "svm"}}}, nil
	}
	return &clipperv1.FeedbackResponse{Losses: []*clipperv1.ModelLoss{{Model: "svm"}, {Model: "forest", Loss: 1}}}, nil
}
