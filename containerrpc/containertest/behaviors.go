// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Echo answers every row with its own inputs.
func Echo(c *Call) { c.Send(EchoOf(c.Request)) }

// EchoOf is the response that answers every row with its own inputs.
func EchoOf(req *clipperv1.PredictRequest) *clipperv1.PredictResponse {
	return &clipperv1.PredictResponse{Id: req.Id, Outputs: req.Inputs}
}

// Slow waits before it behaves.
func Slow(d time.Duration, then Behavior) Behavior {
	return func(c *Call) {
		if c.wait(d) {
			then(c)
		}
	}
}

// Linear is a model that computes one batch after the other, and takes fixed + perRow·rows for each.
func Linear(fixed, perRow time.Duration) Behavior {
	var turn sync.Mutex
	return func(c *Call) {
		turn.Lock()
		defer turn.Unlock()
		if c.wait(fixed + time.Duration(c.Request.Rows)*perRow) {
			Echo(c)
		}
	}
}

// Stalling behaves as told, and each n-th batch only after d.
func Stalling(n int, d time.Duration, then Behavior) Behavior {
	return func(c *Call) {
		if c.Number%n == n-1 && !c.wait(d) {
			return
		}
		then(c)
	}
}

// Gate holds every call until the gate is opened by closing it.
func Gate(open <-chan struct{}, then Behavior) Behavior {
	return func(c *Call) {
		select {
		case <-open:
			then(c)
		case <-c.Context().Done():
		}
	}
}

// FailRows answers like Echo, with an error for the given rows of every batch.
func FailRows(message string, rows ...int) Behavior {
	return func(c *Call) {
		resp := EchoOf(c.Request)
		for _, row := range rows {
			resp.RowErrors = append(resp.RowErrors, &clipperv1.RowError{
				Row: uint32(row), Error: &clipperv1.Error{Code: uint32(codes.InvalidArgument), Message: message},
			})
		}
		c.Send(resp)
	}
}

// FailBatch answers every batch with an error.
func FailBatch(code codes.Code, message string) Behavior {
	return func(c *Call) {
		c.Send(&clipperv1.PredictResponse{Id: c.Request.Id, Error: &clipperv1.Error{Code: uint32(code), Message: message}})
	}
}

// WrongRows answers with one row too many.
func WrongRows(c *Call) {
	c.Send(&clipperv1.PredictResponse{Id: c.Request.Id, Outputs: []*clipperv1.BatchTensor{{
		DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: make([]byte, c.Request.Rows+1),
	}}})
}

// WrongType answers with a type that does not exist.
func WrongType(c *Call) {
	c.Send(&clipperv1.PredictResponse{Id: c.Request.Id, Outputs: []*clipperv1.BatchTensor{{
		DataType: 99, Data: make([]byte, c.Request.Rows),
	}}})
}

// Garbage answers with bytes that are no response.
func Garbage(c *Call) {
	// The field that holds outputs in a response holds text in this message.
	c.stream.send(&clipperv1.DescribeResponse{Version: "garbage"})
}

// Twice answers every batch two times.
func Twice(c *Call) {
	Echo(c)
	Echo(c)
}

// UnknownID answers a batch that nobody sent.
func UnknownID(c *Call) {
	resp := EchoOf(c.Request)
	resp.Id += 1000
	c.Send(resp)
}

// OutOfOrder answers two batches at a time, the later one first. It says that it hardly took any time, so
// that a second one is sent ahead however slow the machine is.
func OutOfOrder() Behavior {
	var mu sync.Mutex
	var held []*Call
	return func(c *Call) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, c)
		if len(held) < 2 {
			return
		}
		for _, h := range slices.Backward(held) {
			resp := EchoOf(h.Request)
			resp.PredictMicros = 1
			h.Send(resp)
		}
		held = nil
	}
}

// Never does not answer.
func Never(*Call) {}

// Die ends the container in the middle of a batch.
func Die(c *Call) {
	c.container.Kill()
}

// Times behaves as first for n calls and as then afterwards.
func Times(n int, first, then Behavior) Behavior {
	var mu sync.Mutex
	return func(c *Call) {
		mu.Lock()
		n--
		b := first
		if n < 0 {
			b = then
		}
		mu.Unlock()
		b(c)
	}
}
