// SPDX-License-Identifier: Apache-2.0

// Package check finds out whether a running model container keeps the contract of docs/containers.md,
// and says in plain words what is wrong and what to do.
package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

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

func skip(format string, args ...any) error {
	return &verdict{Skipped, fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) error {
	return &verdict{Warned, fmt.Sprintf(format, args...)}
}

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

// text returns the words of a gRPC error.
func text(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}
