// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
)

// takingTime is how long a batch may be on its way to a container that waits for one.
const takingTime = 200 * time.Millisecond

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
