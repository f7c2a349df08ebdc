// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	// healthTime is how long a health check may take while batches are predicted.
	healthTime = 2 * time.Second
	// healthPause is how long the next one waits for an answer to a batch.
	healthPause = 10 * time.Millisecond
	// busyTime is about how long a container is kept busy, if it has no batch that takes longer.
	busyTime = 200 * time.Millisecond
)

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

// busy asks for health, again and again, while batches are under way.
func (c *checker) busy(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	n, err := c.busyRows(s)
	if err != nil {
		return "", err
	}
	batch := c.repeat(n)
	begin := time.Now()
	sent, answered, last := 0, 0, begin
	asked, longest := 0, time.Duration(0)
	for answered < sent || sent == 0 {
		// A quick model is kept busy with more batches, a slow one predicts those that it was sent first.
		for sent-answered < c.flights() && (sent < c.flights() || time.Since(begin) < busyTime) {
			if err := s.Send(batchOf(uint64(sent), batch)); err != nil && !errors.Is(err, io.EOF) { //nolint:gosec // Small.
				return "", fmt.Errorf("the batch cannot be sent: %s", text(err))
			}
			sent++
		}
		took, err := c.busyHealth(ctx)
		if err != nil {
			return "", err
		}
		asked, longest = asked+1, max(longest, took)
		select {
		case a, ok := <-s.answers:
			if _, err := received(a, ok); err != nil {
				return "", err
			}
			answered, last = answered+1, time.Now()
		case <-time.After(healthPause):
			if time.Since(last) > c.Timeout {
				return "", fmt.Errorf("no answer to a batch of %d rows within %s while health is asked for", n, c.Timeout)
			}
		}
	}
	return fmt.Sprintf("answered %d times while %d batches of %d rows were predicted, each within %s", asked, answered, n, longest.Round(10*time.Microsecond)), nil
}

// busyHealth asks for health once while batches are predicted, and returns how long that took.
func (c *checker) busyHealth(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	begin := time.Now()
	h, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	took := time.Since(begin)
	if err != nil {
		return 0, fmt.Errorf("no health while batches are predicted (%s after %s): Clipper gives such a container up. Answer health checks on a thread of their own", text(err), took.Round(10*time.Microsecond))
	}
	if h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return 0, fmt.Errorf("the health is %s while batches are predicted: a container that can predict is SERVING", h.Status)
	}
	return took, nil
}

// busyRows returns how many rows make a batch that takes about busyTime, or the most that every container
// must take if it is quicker.
func (c *checker) busyRows(s *stream) (int, error) {
	most := c.most()
	for n := 1; ; {
		begin := time.Now()
		if _, err := s.exchange(batchOf(uint64(n), c.repeat(n))); err != nil { //nolint:gosec // Small.
			return 0, fmt.Errorf("a batch of %d rows: %w", n, err)
		}
		took := time.Since(begin)
		if n == most || 2*took > busyTime {
			return n, nil
		}
		n = min(most, n*min(16, int(busyTime/max(took, 1))))
	}
}
