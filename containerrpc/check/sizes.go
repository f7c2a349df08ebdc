// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// largeRows is the batch that a container without a limit is to take.
	largeRows = 1024
	// largeBytes is the message that one is to take whose limit is not known or larger.
	largeBytes = 16 << 20
)

// most is how many rows, up to largeRows, the container must take in a batch.
func (c *checker) most() int {
	n, limit := c.limit(largeRows), largeBytes
	if m := c.description.MaxMessageBytes; m > 0 {
		limit = int(min(m, largeBytes)) - 4096
	}
	if size := proto.Size(batchOf(1, c.rows)) / len(c.rows); size > 0 {
		n = max(1, min(n, limit/size))
	}
	return n
}

func (c *checker) large(ctx context.Context) (string, error) {
	n := c.most()
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
