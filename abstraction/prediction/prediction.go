// SPDX-License-Identifier: Apache-2.0

// Package prediction defines what the stages between the abstraction service and the replicas pass
// to each other: cache, coalescing and queue are Predictors, each in front of the next.
package prediction

import (
	"context"
	"fmt"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// The priorities; see Request.Priority.
const (
	DefaultPriority = 4
	MaxPriority     = 8
)

// Predictor predicts for one version of one model. Safe for concurrent use.
type Predictor interface {
	// Submit asks for a prediction and returns at once. The request's receiver gets the result
	// exactly once, from any goroutine, perhaps before Submit returns.
	Submit(r *Request)
}

// Request asks one version of a model for the prediction of one row. It must not be modified
// after Submit.
type Request struct {
	// Context is done when nobody waits for the result any more.
	Context context.Context
	// Input is the row.
	Input *tensor.Input
	// Deadline is the time after which the result is of no use to the one who waits.
	Deadline time.Time
	// Priority says what is refused first when not all can be answered in time: 1 is the last, and
	// MaxPriority the first, to be refused; 0 means DefaultPriority.
	Priority uint8
	// Keep is true when the prediction is to be remembered, however little else is.
	Keep bool
	// Receiver gets the result together with Tag.
	Receiver Receiver
	// Tag tells apart the requests of one receiver.
	Tag int
}

// Receiver takes results. Receive must not block and may be called from several goroutines.
type Receiver interface {
	Receive(tag int, r Result)
}

// Reply hands the result to the request's receiver.
func (r *Request) Reply(res Result) { r.Receiver.Receive(r.Tag, res) }

// Result is a prediction or the reason why there is none.
type Result struct {
	// Outputs are the tensors of one row, shared and not to be modified; nil when Err is set.
	Outputs []*clipperv1.Tensor
	// Cached is true when the prediction was remembered.
	Cached bool
	// Err is why there is no prediction.
	Err *Error
}

// Error says why a model gave no prediction, in a form that is fit to be shown to a caller.
type Error struct {
	// Status is never PREDICTION_STATUS_OK.
	Status clipperv1.PredictionStatus
	// Message is the cause in words.
	Message string
	// RetryAfter is when a repetition may succeed; 0 when that is not known.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Errorf returns an Error.
func Errorf(status clipperv1.PredictionStatus, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}
