// SPDX-License-Identifier: Apache-2.0

// Package check finds out whether a running model container keeps the contract of docs/containers.md,
// and says in plain words what is wrong and what to do.
package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/abstraction/replica"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Status is what became of one check.
type Status string

// The statuses. Only a failed one means that the container breaks the contract.
const (
	Passed  Status = "passed"
	Warned  Status = "warned"
	Skipped Status = "skipped"
	Failed  Status = "failed"
)

// Result is the outcome of one check.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Message says what is wrong and what to do, or what was seen.
	Message string `json:"message,omitempty"`
}

// Options say how to check.
type Options struct {
	// Samples are inputs that the model accepts, each the JSON text of one. Without them rows are made up
	// from the signature.
	Samples [][]byte
	// Bad is the JSON text of an input that fits the signature and that the model refuses; nil: none.
	Bad []byte
	// Timeout is the longest that one answer may take, and that the container may take to be ready. It
	// must be positive.
	Timeout time.Duration
	// DrainPID is the process of the container, which is told to stop at the end; 0: it goes on.
	DrainPID int
}

// Run checks the container at an address ("unix:/path" or "host:port") and tells report each result as
// it is known. It returns false when a check failed.
func Run(ctx context.Context, address string, o Options, report func(Result)) (bool, error) {
	c := &checker{Options: o, address: address}
	if err := c.connect(); err != nil {
		return false, fmt.Errorf("address of the container: %w", err)
	}
	defer func() { _ = c.conn.Close() }()
	good := true
	tell := func(name string, detail string, err error) {
		r := Result{Name: name, Status: Passed, Message: detail}
		if err != nil {
			r.Status, r.Message = Failed, err.Error()
			if other := (*verdict)(nil); errors.As(err, &other) {
				r.Status = other.status
			}
		}
		good = good && r.Status != Failed
		report(r)
	}
	lost := ""
	for _, k := range checks {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if lost != "" {
			tell(k.name, "", skip("needs %q", lost))
			continue
		}
		detail, err := k.run(c, ctx)
		tell(k.name, detail, err)
		if k.basic && err != nil {
			if other := (*verdict)(nil); !errors.As(err, &other) {
				lost = k.name
			}
		}
	}
	return good, nil
}

// checks are in order: a basic one that fails makes those after it pointless.
var checks = []struct {
	name  string
	basic bool
	run   func(*checker, context.Context) (string, error)
}{
	{"reachable", true, (*checker).reachable},
	{"health", false, (*checker).health},
	{"description", true, (*checker).describe},
	{"batch of one", true, (*checker).one},
	{"batches of many", true, (*checker).many},
	{"same answer in every batch", false, (*checker).same},
	{"rows of different shapes", false, (*checker).ragged},
	{"unusual text", false, (*checker).text},
	{"a row that fails", false, (*checker).badRow},
	{"invalid requests", false, (*checker).invalid},
	{"ids", false, (*checker).ids},
	{"batches in flight", false, (*checker).inFlight},
	{"deadline", false, (*checker).deadline},
	{"large batches", false, (*checker).large},
	{"large messages", false, (*checker).messages},
	{"health while busy", false, (*checker).busy},
	{"cancellation", false, (*checker).cancellation},
	{"reconnect", false, (*checker).reconnect},
	{"drain", false, (*checker).drain},
}

// verdict is an outcome that is neither good nor a failure.
type verdict struct {
	status  Status
	message string
}

func (v *verdict) Error() string { return v.message }

func skip(format string, args ...any) error { return &verdict{Skipped, fmt.Sprintf(format, args...)} }
func warn(format string, args ...any) error { return &verdict{Warned, fmt.Sprintf(format, args...)} }

// checker holds what one check learns for the next.
type checker struct {
	Options
	address     string
	conn        *grpc.ClientConn
	client      clipperv1.ModelContainerServiceClient
	description *clipperv1.DescribeResponse
	rows        []row
	madeUp      bool
	alone       [][]*clipperv1.Tensor // the outputs of the rows, each in a batch of one
	unsteady    bool                  // the same row is not answered the same each time
}

func (c *checker) connect() error {
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	c.conn, c.client = conn, clipperv1.NewModelContainerServiceClient(conn)
	return nil
}

// stream is a Predict stream whose answers must come in time.
type stream struct {
	clipperv1.ModelContainerService_PredictClient
	cancel  context.CancelFunc
	answers chan answer
	timeout time.Duration
	sent    map[uint64]bool // the ids that exchange has sent
}

type answer struct {
	response *clipperv1.PredictResponse
	err      error
}

// open opens a stream. close it.
func (c *checker) open(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	p, err := c.client.Predict(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("the Predict stream cannot be opened: %s", text(err))
	}
	s := &stream{ModelContainerService_PredictClient: p, cancel: cancel, answers: make(chan answer), timeout: c.Timeout, sent: map[uint64]bool{}}
	go func() {
		defer close(s.answers)
		for {
			r, err := p.Recv()
			select {
			case s.answers <- answer{r, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return s, nil
}

func (s *stream) close() {
	s.cancel()
	for range s.answers { // Until the receiver has gone.
	}
}

// receive returns the next answer.
func (s *stream) receive() (*clipperv1.PredictResponse, error) {
	t := time.NewTimer(s.timeout)
	defer t.Stop()
	select {
	case a, ok := <-s.answers:
		switch {
		case !ok || errors.Is(a.err, io.EOF):
			return nil, errors.New("the container ended the stream: a stream goes on until the caller closes it; answer each request and read the next")
		case a.err != nil:
			return nil, fmt.Errorf("the container ended the stream with %s (%s): say what fails in the response's error, or per row, and keep the stream", status.Code(a.err), text(a.err))
		}
		return a.response, nil
	case <-t.C:
		return nil, fmt.Errorf("no answer within %s (--timeout waits longer): each request needs a response with its id, also one that fails", s.timeout)
	}
}

// exchange sends one batch and returns its answer.
func (s *stream) exchange(req *clipperv1.PredictRequest) (*clipperv1.PredictResponse, error) {
	if err := s.Send(req); err != nil && !errors.Is(err, io.EOF) { // EOF: receive tells why.
		return nil, fmt.Errorf("the batch cannot be sent: %s", text(err))
	}
	resp, err := s.receive()
	switch {
	case err != nil:
	case resp.Id != req.Id && s.sent[resp.Id]:
		err = fmt.Errorf("batch %d was answered twice: one response for each request", resp.Id)
	case resp.Id != req.Id:
		err = fmt.Errorf("the answer to batch %d has the id %d: copy the request's id into the response", req.Id, resp.Id)
	}
	s.sent[req.Id] = true
	return resp, err
}

// ask has a batch answered on a stream of its own.
func (c *checker) ask(ctx context.Context, req *clipperv1.PredictRequest) (*clipperv1.PredictResponse, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.exchange(req)
}

// alive reports whether a good batch is answered on the stream.
func (c *checker) alive(s *stream) error {
	resp, err := s.exchange(batchOf(99, c.rows[:1]))
	if err != nil {
		return err
	}
	_, err = c.outputs(resp, 1)
	return err
}

// outputs returns the rows' outputs, all of which must be there.
func (c *checker) outputs(resp *clipperv1.PredictResponse, rows int) ([][]*clipperv1.Tensor, error) {
	if resp.Error != nil {
		return nil, c.refused(resp.Error)
	}
	flat, err := replica.Split(resp, rows, c.description.GetSignature().GetOutputs())
	if err != nil {
		return nil, fmt.Errorf("the answer to a batch of %d rows cannot be used: %w", rows, err)
	}
	if len(resp.RowErrors) > 0 {
		return nil, fmt.Errorf("row %d: %w", resp.RowErrors[0].Row, c.refused(resp.RowErrors[0].Error))
	}
	width := len(flat) / rows
	var out [][]*clipperv1.Tensor
	for i := range rows {
		out = append(out, flat[i*width:(i+1)*width])
	}
	return out, nil
}

// refused says that the model refuses what the check sends.
func (c *checker) refused(e *clipperv1.Error) error {
	if c.madeUp {
		return fmt.Errorf("the model refused a row that was made up from its signature: %q. Give a real input with --sample, or make the signature say what is accepted", e.Message)
	}
	return fmt.Errorf("the model refused a sample: %q", e.Message)
}

func (c *checker) reachable(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Unavailable || code == codes.Canceled {
		return "", fmt.Errorf("nothing answers at %s within %s (%s): is it running, and does it serve on CLIPPER_CONTAINER_ADDRESS?", c.address, c.Timeout, text(err))
	}
	return c.address, nil
}

// health waits until the model is loaded.
func (c *checker) health(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	begin := time.Now()
	for {
		h, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		switch {
		case status.Code(err) == codes.Unimplemented:
			return "", errors.New("there is no health service: serve grpc.health.v1.Health on the same port")
		case status.Code(err) == codes.NotFound:
			return "", errors.New(`the health service does not know the service "": set the status of the empty name`)
		case status.Code(err) == codes.DeadlineExceeded:
			return "", fmt.Errorf(`not SERVING within %s: set the status of "" to SERVING when the model is loaded (--timeout waits longer)`, c.Timeout)
		case err != nil:
			return "", fmt.Errorf("the health check failed: %s", text(err))
		case h.Status == grpc_health_v1.HealthCheckResponse_SERVING:
			return fmt.Sprintf("SERVING after %s", time.Since(begin).Round(time.Millisecond)), nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // The model is being loaded.
		}
	}
}

// text returns the words of a gRPC error.
func text(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}
