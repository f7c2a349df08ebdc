// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// largeRows is the batch that a container without a limit is to take.
	largeRows = 1024
	// largeBytes is the message that one is to take whose limit is not known or larger.
	largeBytes = 16 << 20
	// healthTime is how long a health check may take while batches are predicted.
	healthTime = 2 * time.Second
	// takingTime is how long a batch may be on its way to a container that waits for one.
	takingTime = 200 * time.Millisecond
)

func (c *checker) describe(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	d, err := c.client.Describe(ctx, &clipperv1.DescribeRequest{})
	if err != nil {
		return "", fmt.Errorf("the call Describe failed with %s (%s): answer it as soon as the model is loaded", status.Code(err), text(err))
	}
	c.description = d
	for kind, specs := range map[string][]*clipperv1.TensorSpec{"input": d.GetSignature().GetInputs(), "output": d.GetSignature().GetOutputs()} {
		names := map[string]bool{}
		for i, s := range specs {
			switch _, known := clipperv1.DataType_name[int32(s.DataType)]; {
			case !known:
				return "", fmt.Errorf("%s %d has the data_type %d, which does not exist: see tensor.proto", kind, i, s.DataType)
			case s.AnyShape && len(s.Shape) > 0:
				return "", fmt.Errorf("%s %d (%q) has any_shape and the shape %v: leave one of them out", kind, i, s.Name, s.Shape)
			case slices.ContainsFunc(s.Shape, func(n int64) bool { return n < -1 }):
				return "", fmt.Errorf("%s %d (%q) has the shape %v: a dimension is a length, or -1 for any", kind, i, s.Name, s.Shape)
			case len(specs) > 1 && (s.Name == "" || names[s.Name]):
				return "", fmt.Errorf("%s %d is named %q: of several %ss, each needs a name of its own", kind, i, s.Name, kind)
			}
			names[s.Name] = true
		}
	}
	if err := c.prepare(); err != nil {
		return "", err
	}
	declared := func(specs []*clipperv1.TensorSpec) string {
		if len(specs) == 0 {
			return "any"
		}
		return strconv.Itoa(len(specs))
	}
	return fmt.Sprintf("inputs: %s, outputs: %s, batches in flight: %d", declared(d.GetSignature().GetInputs()), declared(d.GetSignature().GetOutputs()), c.flights()), nil
}

// flights is the number of batches that may be under way.
func (c *checker) flights() int {
	if c.description.MaxInFlight == 0 {
		return 2
	}
	return int(c.description.MaxInFlight)
}

// one has each row answered alone, the first one twice.
func (c *checker) one(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	for i, r := range append(slices.Clone(c.rows), c.rows[0]) {
		resp, err := s.exchange(batchOf(uint64(i), []row{r})) //nolint:gosec // Small.
		if err != nil {
			return "", err
		}
		out, err := c.outputs(resp, 1)
		if err != nil {
			return "", err
		}
		c.alone = append(c.alone, out[0])
	}
	last := len(c.rows)
	c.unsteady = !equal(c.alone[0], c.alone[last])
	c.alone = c.alone[:last]
	return "", nil
}

func (c *checker) many(ctx context.Context) (string, error) {
	if c.description.MaxBatchRows == 1 {
		return "", skip("max_batch_rows is 1")
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	for _, n := range []int{2, 7, 32} {
		n = c.limit(n)
		resp, err := s.exchange(batchOf(1, c.repeat(n)))
		if err != nil {
			return "", fmt.Errorf("a batch of %d rows: %w", n, err)
		}
		if _, err := c.outputs(resp, n); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (c *checker) same(ctx context.Context) (string, error) {
	if c.unsteady {
		return "", warn("the same row was answered differently the second time, so the order of rows cannot be checked. If the model is random on purpose, deploy it with --no-cache")
	}
	n := c.limit(2*len(c.rows) + 1)
	resp, err := c.ask(ctx, batchOf(1, c.repeat(n)))
	if err != nil {
		return "", err
	}
	out, err := c.outputs(resp, n)
	if err != nil {
		return "", err
	}
	for i := range out {
		if want := c.alone[i%len(c.rows)]; !equal(out[i], want) {
			for j, other := range c.alone {
				if j != i%len(c.rows) && equal(out[i], other) {
					return "", fmt.Errorf("row %d of a batch of %d got the answer of another row: outputs must be in the order of the rows", i, n)
				}
			}
			return "", fmt.Errorf("row %d is answered differently in a batch of %d than alone: a prediction must not depend on the other rows. Is the model in evaluation mode?", i, n)
		}
	}
	if !slices.ContainsFunc(c.alone, func(o []*clipperv1.Tensor) bool { return !equal(o, c.alone[0]) }) {
		return "all rows have the same answer, so this says nothing of their order; --sample with inputs that differ does", nil
	}
	return "", nil
}

// ragged sends rows in one batch that differ in shape and that are answered alone.
func (c *checker) ragged(ctx context.Context) (string, error) {
	specs := c.description.GetSignature().GetInputs()
	var rows []row
	if c.madeUp {
		for k := range 3 {
			rows = append(rows, makeRow(specs, k, int64(openLength+k)))
		}
		if len(specs) == 0 || !slices.ContainsFunc(specs, func(s *clipperv1.TensorSpec) bool { return slices.Contains(s.Shape, -1) }) {
			return "", skip("the signature does not say that lengths may differ; --sample with inputs that differ in shape checks it")
		}
	} else {
		rows = c.rows
		if !slices.ContainsFunc(rows, func(r row) bool {
			return slices.ContainsFunc(batchOf(0, []row{rows[0], r}).Inputs, func(b *clipperv1.BatchTensor) bool { return len(b.RowShapes) > 0 })
		}) {
			return "", skip("no two samples differ in shape")
		}
	}
	rows = rows[:c.limit(len(rows))]
	var alone [][]*clipperv1.Tensor
	for _, r := range rows {
		resp, err := c.ask(ctx, batchOf(1, []row{r}))
		if err != nil {
			return "", err
		}
		out, err := c.outputs(resp, 1)
		if err != nil {
			return "", skip("%v", err)
		}
		alone = append(alone, out[0])
	}
	resp, err := c.ask(ctx, batchOf(1, rows))
	if err != nil {
		return "", err
	}
	out, err := c.outputs(resp, len(rows))
	if err != nil {
		return "", fmt.Errorf("rows of different shapes are answered alone, but not in one batch, where row_shapes has the shape of each: %w", err)
	}
	for i := range out {
		if !c.unsteady && !equal(out[i], alone[i]) {
			return "", fmt.Errorf("row %d of a batch of rows of different shapes is answered differently than alone: cut the elements by row_shapes", i)
		}
	}
	return "", nil
}

func (c *checker) text(ctx context.Context) (string, error) {
	at := slices.IndexFunc(c.rows[0], func(t *clipperv1.Tensor) bool {
		return t.DataType == clipperv1.DataType_DATA_TYPE_STRING && len(t.Strings) > 0
	})
	if at < 0 {
		return "", skip("no input is text")
	}
	rows := c.repeat(c.limit(4))
	for i, words := range []string{"", "naïve 漢字 🙂", "a\x00b\n", string(make([]byte, 1<<16))} {
		if i < len(rows) {
			r := slices.Clone(c.rows[0])
			r[at] = proto.CloneOf(r[at])
			r[at].Strings[0] = words
			rows[i] = r
		}
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	return c.suffer(s, rows, "an empty, a non-ASCII, a control or a long text")
}

// suffer sends rows that may fail: the answer must be valid and the stream must go on.
func (c *checker) suffer(s *stream, rows []row, what string) (string, error) {
	resp, err := s.exchange(batchOf(1, rows))
	if err != nil {
		return "", err
	}
	if resp.Error == nil {
		if err := c.validRows(resp, len(rows)); err != nil {
			return "", err
		}
	}
	if err := c.alive(s); err != nil {
		return "", fmt.Errorf("after %s: %w", what, err)
	}
	if resp.Error != nil && len(rows) > 1 {
		return "", warn("%s failed the whole batch (%q): give row_errors, so that the other rows are answered", what, resp.Error.Message)
	}
	return fmt.Sprintf("%d of %d rows refused", len(resp.RowErrors), len(rows)), nil
}

// validRows checks an answer with errors of rows.
func (c *checker) validRows(resp *clipperv1.PredictResponse, rows int) error {
	for _, e := range resp.RowErrors {
		if e.GetError().GetCode() == 0 || e.GetError().GetMessage() == "" {
			return fmt.Errorf("the error of row %d has no code or no message: callers see them", e.Row)
		}
	}
	resp = proto.CloneOf(resp)
	errs := resp.RowErrors
	resp.RowErrors = nil
	_, err := c.outputs(resp, rows)
	if len(errs) == rows {
		return nil // No outputs are needed.
	}
	return err
}

func (c *checker) badRow(ctx context.Context) (string, error) {
	rows := c.repeat(c.limit(3))
	at := min(1, len(rows)-1)
	what := "a row that the model refuses"
	if c.Bad != nil {
		bad, err := c.sample(c.Bad)
		if err != nil {
			return "", err
		}
		rows[at] = bad
	} else {
		k := slices.IndexFunc(rows[at], func(t *clipperv1.Tensor) bool { return tolerance(t.DataType) > 0 && len(t.Data) > 0 })
		if k < 0 {
			return "", skip("give an input that the model refuses with --bad-sample")
		}
		bad := slices.Clone(rows[at])
		bad[k] = proto.CloneOf(bad[k])
		for i := range bad[k].Data {
			bad[k].Data[i] = 0xff // Not a number, in every type of float.
		}
		rows[at], what = bad, "a row of NaN"
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	return c.suffer(s, rows, what)
}

// invalid sends requests that break the contract.
func (c *checker) invalid(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	good := batchOf(5, slices.Repeat(c.rows[:1], c.limit(2)))
	elements, _ := tensor.Elements(good.Inputs[0].Shape)
	requests := []struct {
		what    string
		applies bool
		spoil   func(*clipperv1.PredictRequest)
	}{
		{"with fewer elements than its rows need", elements > 0, func(r *clipperv1.PredictRequest) {
			t := r.Inputs[0]
			t.Data, t.Strings, t.ByteStrings = t.Data[:len(t.Data)/2], t.Strings[:len(t.Strings)/2], t.ByteStrings[:len(t.ByteStrings)/2]
		}},
		{"without the input", len(c.description.GetSignature().GetInputs()) > 0, func(r *clipperv1.PredictRequest) { r.Inputs = nil }},
		{"of another type", c.typed(), func(r *clipperv1.PredictRequest) {
			t, n := r.Inputs[0], int(elements)*int(r.Rows)
			text := t.DataType == clipperv1.DataType_DATA_TYPE_STRING
			t.Data, t.Strings, t.ByteStrings = nil, nil, nil
			if text {
				t.DataType, t.Data = clipperv1.DataType_DATA_TYPE_FLOAT64, make([]byte, 8*n)
			} else {
				t.DataType, t.Strings = clipperv1.DataType_DATA_TYPE_STRING, slices.Repeat([]string{"x"}, n)
			}
		}},
		{"of 0 rows", true, func(r *clipperv1.PredictRequest) {
			r.Rows = 0
			for _, t := range r.Inputs {
				t.Data, t.Strings, t.ByteStrings = nil, nil, nil
			}
		}},
	}
	var untried []string
	for _, q := range requests {
		if !q.applies {
			untried = append(untried, q.what)
			continue
		}
		req := proto.CloneOf(good)
		q.spoil(req)
		resp, err := s.exchange(req)
		if err != nil {
			return "", fmt.Errorf("a request %s: %w", q.what, err)
		}
		if resp.Error == nil && (len(resp.RowErrors) == 0 || len(resp.RowErrors) < int(req.Rows)) {
			return "", fmt.Errorf("a request %s was answered as if it were right: answer it with an error (reason INVALID_FIELD)", q.what)
		}
		if err := c.alive(s); err != nil {
			return "", fmt.Errorf("after a request %s: %w", q.what, err)
		}
	}
	if len(untried) > 0 {
		return "", skip("by the signature, a request %s may be right, and was not tried; the others were refused, as they must be", strings.Join(untried, " or "))
	}
	return "", nil
}

// typed reports whether the signature says of which type the first input is.
func (c *checker) typed() bool {
	specs := c.description.GetSignature().GetInputs()
	return len(specs) > 0 && specs[0].DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED
}

// ids sends one batch after the other with ids that no counter would give.
func (c *checker) ids(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	for _, id := range []uint64{0, 1 << 33, math.MaxUint64, 3, 3} {
		if _, err := s.exchange(batchOf(id, c.rows[:1])); err != nil {
			return "", err
		}
	}
	if err := s.CloseSend(); err != nil {
		return "", fmt.Errorf("the stream cannot be closed: %s", text(err))
	}
	return "", s.end("a batch was answered twice, or one that nobody sent: one response for each request")
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

// inFlight sends as many batches as are allowed before it reads, and then more.
func (c *checker) inFlight(ctx context.Context) (string, error) {
	for _, n := range []int{c.flights(), 3*c.flights() + 1} {
		if err := c.together(ctx, n); err != nil {
			return "", fmt.Errorf("%d batches at once (max_in_flight is %d): %w", n, c.flights(), err)
		}
	}
	return "", nil
}

func (c *checker) together(ctx context.Context, n int) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	for i := range n {
		if err := s.Send(batchOf(uint64(i), []row{c.rows[i%len(c.rows)]})); err != nil && !errors.Is(err, io.EOF) { //nolint:gosec // Small.
			return fmt.Errorf("the batch cannot be sent: %s", text(err))
		}
	}
	open := map[uint64]bool{}
	for i := range n {
		open[uint64(i)] = true //nolint:gosec // Small.
	}
	for range n {
		resp, err := s.receive()
		if err != nil {
			return err
		}
		if !open[resp.Id] {
			return fmt.Errorf("batch %d was answered twice, or was not sent: one response for each request, with its id", resp.Id)
		}
		delete(open, resp.Id)
		out, err := c.outputs(resp, 1)
		if err != nil {
			if n > c.flights() && resp.Error != nil {
				continue // It may refuse what it did not allow.
			}
			return err
		}
		if !c.unsteady && !equal(out[0], c.alone[int(resp.Id)%len(c.rows)]) { //nolint:gosec // Small.
			return fmt.Errorf("batch %d has the answer of another one: are batches mixed up, or is the model used by two threads at once?", resp.Id)
		}
	}
	return nil
}

func (c *checker) deadline(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	short := batchOf(1, c.rows[:1])
	short.TimeoutMicros = 1
	if _, err := s.exchange(short); err != nil {
		return "", fmt.Errorf("a batch whose time is over: %w", err)
	}
	long := batchOf(2, c.rows[:1])
	long.TimeoutMicros = math.MaxUint64
	resp, err := s.exchange(long)
	if err == nil {
		_, err = c.outputs(resp, 1)
	}
	if err != nil {
		return "", fmt.Errorf("a batch with the largest timeout_micros: %w", err)
	}
	return "", nil
}

func (c *checker) large(ctx context.Context) (string, error) {
	n := c.limit(largeRows)
	limit := largeBytes
	if m := c.description.MaxMessageBytes; m > 0 {
		limit = int(min(m, largeBytes)) - 4096
	}
	if size := proto.Size(batchOf(1, c.rows)) / len(c.rows); size > 0 {
		n = max(1, min(n, limit/size))
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	begin := time.Now()
	resp, err := s.exchange(batchOf(1, c.repeat(n)))
	if err == nil {
		_, err = c.outputs(resp, n)
	}
	if err != nil {
		return "", fmt.Errorf("a batch of %d rows: %w", n, err)
	}
	took := time.Since(begin).Round(10 * time.Microsecond)
	if m := int(c.description.MaxBatchRows); m > 0 && m <= largeRows {
		resp, err := s.exchange(batchOf(2, c.repeat(m+1)))
		if err != nil {
			return "", fmt.Errorf("a batch of %d rows, where max_batch_rows is %d: %w", m+1, m, err)
		}
		if resp.Error == nil {
			return "", fmt.Errorf("a batch of %d rows was answered although max_batch_rows is %d: refuse it with the reason TOO_LARGE, or raise the limit", m+1, m)
		}
		if err := c.alive(s); err != nil {
			return "", fmt.Errorf("after a batch that was too large: %w", err)
		}
	}
	return fmt.Sprintf("%d rows in %s", n, took), nil
}

// messages sends a message as large as the container says that it takes.
func (c *checker) messages(ctx context.Context) (string, error) {
	limit := c.description.MaxMessageBytes
	n := largeBytes
	if limit > 0 {
		n = int(min(limit, 128<<20))
	}
	req := batchOf(1, c.rows[:1])
	size := n - proto.Size(req) - 4096
	if size <= 0 {
		return "", skip("max_message_bytes is %d, hardly more than a row", limit)
	}
	pad(req, size)
	resp, err := c.ask(ctx, req)
	if err == nil {
		_, err = c.outputs(resp, 1)
	}
	if err != nil {
		return "", fmt.Errorf("a message of %d bytes, where max_message_bytes is %d (0: no limit): %w. gRPC's own limit is 4 MiB: raise what the server receives", proto.Size(req), limit, err)
	}
	if limit > 0 && limit <= 128<<20 {
		pad(req, int(limit)+1)
		_, _ = c.ask(ctx, req) // Refused, or the end of the stream; but not of the container.
		resp, err := c.ask(ctx, batchOf(1, c.rows[:1]))
		if err == nil {
			_, err = c.outputs(resp, 1)
		}
		if err != nil {
			return "", fmt.Errorf("after a message above max_message_bytes: %w", err)
		}
	}
	return fmt.Sprintf("%d bytes", n), nil
}

// busy asks for health while batches are under way.
func (c *checker) busy(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	n := c.limit(256)
	for i := range c.flights() {
		if err := s.Send(batchOf(uint64(i), c.repeat(n))); err != nil && !errors.Is(err, io.EOF) { //nolint:gosec // Small.
			return "", fmt.Errorf("the batch cannot be sent: %s", text(err))
		}
	}
	begin := time.Now()
	h, err := func() (*grpc_health_v1.HealthCheckResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, healthTime)
		defer cancel()
		return grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	}()
	took := time.Since(begin).Round(10 * time.Microsecond)
	for range c.flights() {
		if _, err := s.receive(); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", fmt.Errorf("no health while batches are predicted (%s after %s): Clipper gives such a container up. Answer health checks on a thread of their own", text(err), took)
	}
	if h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("the health is %s while batches are predicted: a container that can predict is SERVING", h.Status)
	}
	return fmt.Sprintf("answered in %s", took), nil
}

// cancellation ends streams in the middle of batches: the first at once, the others when one batch is
// answered and the next is under way.
func (c *checker) cancellation(ctx context.Context) (string, error) {
	for i := range 3 {
		s, err := c.open(ctx)
		if err != nil {
			return "", err
		}
		for i := range c.flights() {
			_ = s.Send(batchOf(uint64(i), c.repeat(c.limit(32)))) //nolint:gosec // It may have ended already.
		}
		if i > 0 {
			_, err = s.receive()
		}
		s.close()
		if err != nil {
			return "", fmt.Errorf("after streams that the caller cancelled: %w", err)
		}
	}
	resp, err := c.ask(ctx, batchOf(1, c.rows[:1]))
	if err == nil {
		_, err = c.outputs(resp, 1)
	}
	if err != nil {
		return "", fmt.Errorf("after streams that the caller cancelled: %w", err)
	}
	return "", nil
}

// reconnect uses two streams at once, and then a new connection.
func (c *checker) reconnect(ctx context.Context) (string, error) {
	a, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer a.close()
	b, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer b.close()
	for _, s := range []*stream{a, b, a} {
		if err := c.alive(s); err != nil {
			return "", fmt.Errorf("with two streams open, as while Clipper starts again: %w", err)
		}
	}
	_ = c.conn.Close()
	if err := c.connect(); err != nil {
		return "", err
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	if err := c.alive(s); err != nil {
		return "", fmt.Errorf("on a new connection: %w", err)
	}
	return "", nil
}

// drain tells the container to stop while it predicts.
func (c *checker) drain(ctx context.Context) (string, error) {
	if c.DrainPID == 0 {
		return "", skip("it ends the container; --drain-pid PID checks it")
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	if err := c.alive(s); err != nil {
		return "", err
	}
	for i := range c.flights() {
		_ = s.Send(batchOf(uint64(i), c.repeat(c.limit(32)))) //nolint:gosec // Small.
	}
	answered := 0
	select { // The first is to be taken by then, or answered.
	case a := <-s.answers:
		if a.err != nil {
			return "", fmt.Errorf("the container ended the stream before it was told to stop (%s)", text(a.err))
		}
		answered++
	case <-time.After(takingTime):
	}
	if err := syscall.Kill(c.DrainPID, syscall.SIGTERM); err != nil {
		return "", fmt.Errorf("SIGTERM to process %d: %w", c.DrainPID, err)
	}
	limit := time.NewTimer(c.Timeout)
	defer limit.Stop()
	for open := true; open; {
		select {
		case a, ok := <-s.answers:
			switch {
			case !ok || errors.Is(a.err, io.EOF):
				open = false
			case a.err != nil:
				return "", fmt.Errorf("after SIGTERM the stream ended with %s (%s): answer what was taken, then end the stream with OK", status.Code(a.err), text(a.err))
			default:
				answered++
			}
		case <-limit.C:
			return "", fmt.Errorf("the stream was open %s after SIGTERM: take nothing new, answer what was taken, end the stream with OK", c.Timeout)
		}
	}
	for syscall.Kill(c.DrainPID, 0) == nil && !exited(c.DrainPID) {
		select {
		case <-limit.C:
			return "", fmt.Errorf("process %d runs %s after SIGTERM: exit with 0 when the streams have ended", c.DrainPID, c.Timeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if answered == 0 {
		return "", warn("none of %d batches was answered, though the first was sent %s before SIGTERM: answer what was taken", c.flights(), takingTime)
	}
	return fmt.Sprintf("%d of %d batches answered, the others go elsewhere; the exit code, which only its parent sees, must be 0", answered, c.flights()), nil
}
