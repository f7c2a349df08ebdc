// SPDX-License-Identifier: Apache-2.0

// Package target asks servers in each of the protocols that a load can be sent in.
package target

import (
	"context"
	"encoding/json"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/loadgen"
)

// Input is what a query asks: natural JSON, or tensors.
type Input struct {
	JSON    []byte
	Tensors []*clipperv1.Tensor
}

// Params are what a query has besides its input. The zero value says nothing.
type Params struct {
	Context  string
	Priority uint32
	Timeout  time.Duration
}

// Call asks one input, whose encoding was made before. It is safe for concurrent use.
type Call func(context.Context, Params) (loadgen.Answer, error)

// Client asks one application, or one model, of a server. It is safe for concurrent use. What its calls return
// as errors are [*loadgen.Failure], with the server's reason where it names one.
type Client interface {
	// Signature returns what the server takes, by its metadata.
	Signature(ctx context.Context) ([]*clipperv1.TensorSpec, error)
	// Prepare encodes an input. Its error says why it does not fit.
	Prepare(input Input) (Call, error)
	// Feedback says what was true, in JSON, for the answer of a feedback id.
	Feedback(ctx context.Context, id string, truth json.RawMessage) error
	// Close ends the client, when nothing is in flight.
	Close()
}

// maxElements is the most elements of an input.
const maxElements = 1 << 26

func failed(reason, message string) error {
	return &loadgen.Failure{Reason: reason, Message: message}
}
