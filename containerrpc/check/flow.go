// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
)

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
