// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/loadgen"
)

// Conns are connections that take calls in turn. The one who dialled closes them.
type Conns struct {
	all  []grpc.ClientConnInterface
	next atomic.Uint64
}

// NewConns returns connections, of which there is at least one.
func NewConns(all ...grpc.ClientConnInterface) *Conns { return &Conns{all: all} }

func (c *Conns) get() grpc.ClientConnInterface { return c.all[c.next.Add(1)%uint64(len(c.all))] }

// Invoke implements grpc.ClientConnInterface.
func (c *Conns) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.get().Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *Conns) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.get().NewStream(ctx, desc, method, opts...)
}

// failure returns an error of gRPC with its reason, or else its code. What a client has wrapped around the
// status is left out.
func failure(err error) error {
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		err = st.GRPCStatus().Err()
	}
	return failureOf(apierror.ToProto(err))
}

func failureOf(e *clipperv1.Error) error {
	reason := strings.TrimPrefix(e.GetReason().String(), "ERROR_REASON_")
	if e.GetReason() == clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		reason = codeName(codes.Code(e.GetCode()))
	}
	return failed(reason, e.GetMessage())
}

// codeName returns a code as the API documents it.
func codeName(code codes.Code) string {
	name := []byte(nil)
	for i, c := range code.String() {
		if i > 0 && c >= 'A' && c <= 'Z' {
			name = append(name, '_')
		}
		name = append(name, byte(c))
	}
	return strings.ToUpper(string(name))
}

// grpcClient asks one query in each call.
type grpcClient struct {
	application string
	signature   *oipGRPC // Its metadata is the same for all protocols.
	query       clipperv1.QueryServiceClient
	feedback    clipperv1.FeedbackServiceClient
}

// NewGRPC returns a client of the gRPC API that makes a call for each query.
func NewGRPC(conns *Conns, application string) Client { return newGRPC(conns, application) }

func newGRPC(conns *Conns, application string) *grpcClient {
	return &grpcClient{
		application: application, signature: newOIPGRPC(conns, application, ""),
		query: clipperv1.NewQueryServiceClient(conns), feedback: clipperv1.NewFeedbackServiceClient(conns),
	}
}

func (c *grpcClient) Close() {}

func (c *grpcClient) Signature(ctx context.Context) ([]*clipperv1.TensorSpec, error) {
	return c.signature.Signature(ctx)
}

func (c *grpcClient) request(input Input, p Params) *clipperv1.QueryRequest {
	q := &clipperv1.QueryRequest{
		Application: c.application, Inputs: input.Tensors, InputJson: input.JSON, Context: p.Context, Priority: p.Priority,
	}
	if p.Timeout > 0 {
		q.Timeout = durationpb.New(p.Timeout)
	}
	return q
}

func (c *grpcClient) Prepare(input Input) (Call, error) {
	return func(ctx context.Context, p Params) (loadgen.Answer, error) {
		response, err := c.query.Query(ctx, c.request(input, p))
		if err != nil {
			return loadgen.Answer{}, failure(err)
		}
		return answerOf(response), nil
	}, nil
}

func answerOf(r *clipperv1.QueryResponse) loadgen.Answer {
	a := loadgen.Answer{FeedbackID: r.GetFeedbackId()}
	if r.GetIsDefault() {
		a.Default = defaultReason(r.GetDefaultReason().String())
	}
	for i, p := range r.GetPredictions() {
		a.Cached = p.GetCached() && (i == 0 || a.Cached)
	}
	return a
}

// defaultReason shortens the name of a default reason.
func defaultReason(name string) string { return strings.TrimPrefix(name, "DEFAULT_REASON_") }

func (c *grpcClient) Feedback(ctx context.Context, id string, truth json.RawMessage) error {
	var value structpb.Value
	if err := value.UnmarshalJSON(truth); err != nil {
		return failed("INVALID_TRUTH", err.Error())
	}
	_, err := c.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{
		Application: c.application, FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Truth{Truth: &value},
	})
	if err != nil {
		return failure(err)
	}
	return nil
}

// streamClient asks on streams that stay open, one for each connection.
type streamClient struct {
	*grpcClient
	lanes []*lane
	next  atomic.Uint64
}

// NewStream returns a client of the gRPC API that asks on streams.
func NewStream(conns *Conns, application string) Client {
	c := &streamClient{grpcClient: newGRPC(conns, application)}
	for _, conn := range conns.all {
		c.lanes = append(c.lanes, &lane{client: clipperv1.NewQueryServiceClient(conn), pending: map[uint64]chan *clipperv1.QueryResult{}})
	}
	return c
}

func (c *streamClient) Close() {
	for _, l := range c.lanes {
		l.close()
	}
}

func (c *streamClient) Prepare(input Input) (Call, error) {
	return func(ctx context.Context, p Params) (loadgen.Answer, error) {
		l := c.lanes[c.next.Add(1)%uint64(len(c.lanes))]
		result, err := l.ask(ctx, c.request(input, p))
		switch {
		case err != nil:
			return loadgen.Answer{}, failure(err)
		case result.GetError() != nil:
			return loadgen.Answer{}, failureOf(result.GetError())
		}
		return answerOf(result.GetResponse()), nil
	}, nil
}

// lane is a stream, opened when it is needed, and again after it broke.
type lane struct {
	client clipperv1.QueryServiceClient
	// sending keeps what is sent in one piece; a stream takes one sender.
	sending sync.Mutex
	stream  clipperv1.QueryService_QueryStreamClient
	cancel  context.CancelFunc
	readers sync.WaitGroup

	mu       sync.Mutex
	sequence uint64
	pending  map[uint64]chan *clipperv1.QueryResult
}

func (l *lane) ask(ctx context.Context, q *clipperv1.QueryRequest) (*clipperv1.QueryResult, error) {
	answer := make(chan *clipperv1.QueryResult, 1)
	sequence, err := l.send(q, answer)
	if err != nil {
		return nil, err
	}
	select {
	case result := <-answer:
		return result, nil
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.pending, sequence)
		l.mu.Unlock()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (l *lane) send(q *clipperv1.QueryRequest, answer chan *clipperv1.QueryResult) (uint64, error) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if l.stream == nil {
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := l.client.QueryStream(ctx)
		if err != nil {
			cancel()
			return 0, err
		}
		l.stream, l.cancel = stream, cancel
		l.readers.Go(func() { l.receive(stream) })
	}
	l.mu.Lock()
	l.sequence++
	sequence := l.sequence
	l.pending[sequence] = answer
	l.mu.Unlock()
	if l.stream.Send(&clipperv1.QueryStreamRequest{Sequence: sequence, Query: q}) != nil {
		// Whoever receives has the cause, and tells it to all who wait.
		l.cancel()
		l.stream = nil
	}
	return sequence, nil
}

func (l *lane) receive(stream clipperv1.QueryService_QueryStreamClient) {
	for {
		response, err := stream.Recv()
		if err != nil {
			l.broken(stream, err)
			return
		}
		l.mu.Lock()
		answer := l.pending[response.GetSequence()]
		delete(l.pending, response.GetSequence())
		l.mu.Unlock()
		if answer != nil {
			answer <- response.GetResult()
		}
	}
}

// broken tells all who wait that the stream broke.
func (l *lane) broken(stream clipperv1.QueryService_QueryStreamClient, err error) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if l.stream == stream {
		l.cancel()
		l.stream = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for sequence, answer := range l.pending {
		delete(l.pending, sequence)
		answer <- &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Error{Error: apierror.ToProto(err)}}
	}
}

func (l *lane) close() {
	l.sending.Lock()
	if l.stream != nil {
		l.cancel()
	}
	l.sending.Unlock()
	l.readers.Wait()
}
