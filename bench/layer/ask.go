// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"time"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Ask asks about row i, which wraps around, and waits for the answer, which has so long to come.
func (l *Layer) Ask(ctx context.Context, i int, limit time.Duration) error {
	w := make(waiter, 1)
	l.Version.Submit(&prediction.Request{
		Context: ctx, Input: tensor.FromTensors(l.Rows[i%len(l.Rows)]), Deadline: time.Now().Add(limit), Receiver: w,
	})
	if r := <-w; r.Err != nil {
		return r.Err
	}
	return nil
}

// waiter hands a result to the one who waits for it.
type waiter chan prediction.Result

// Receive implements prediction.Receiver.
func (w waiter) Receive(_ int, r prediction.Result) { w <- r }
