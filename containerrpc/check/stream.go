// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/abstraction/replica"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

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
		return received(a, ok)
	case <-t.C:
		return nil, fmt.Errorf("no answer within %s (--timeout waits longer): each request needs a response with its id, also one that fails", s.timeout)
	}
}

// received returns an answer of the channel; ok is false when the stream has ended.
func received(a answer, ok bool) (*clipperv1.PredictResponse, error) {
	switch {
	case !ok || errors.Is(a.err, io.EOF):
		return nil, errors.New("the container ended the stream: a stream goes on until the caller closes it; answer each request and read the next")
	case a.err != nil:
		return nil, fmt.Errorf("the container ended the stream with %s (%s): say what fails in the response's error, or per row, and keep the stream", status.Code(a.err), text(a.err))
	}
	return a.response, nil
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

// end waits for the stream to end well; extra is what an answer would mean.
func (s *stream) end(extra string) error {
	t := time.NewTimer(s.timeout)
	defer t.Stop()
	select {
	case a, ok := <-s.answers:
		switch {
		case !ok || errors.Is(a.err, io.EOF):
			return nil
		case a.err != nil:
			return fmt.Errorf("the stream ended with %s (%s): end it with OK when the caller has closed its side", status.Code(a.err), text(a.err))
		}
		return fmt.Errorf("id %d: %s", a.response.Id, extra)
	case <-t.C:
		return fmt.Errorf("the stream did not end within %s after the caller had closed its side: return from the handler then", s.timeout)
	}
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
