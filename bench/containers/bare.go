// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// bare is a process that has made a model and times the framework's own call when it is asked. The protocol is described in
// models/bare.py.
type bare struct {
	cmd     *exec.Cmd
	asks    io.WriteCloser
	answers *json.Decoder
	// Path is the saved model.
	Path string
	// Rows is how many rows there are; a batch of n is the first n.
	Rows int
	// Data is a file with the rows, row-major, of numpy's type DType; each has the shape Shape.
	Data, DType string
	Shape       []int64
	// Strings are the rows when they are texts.
	Strings []string
	// Env is what the container needs in its environment.
	Env  []string
	data []byte
}

// startBare runs a script of models and waits until the model is made.
func startBare(ctx context.Context, log io.Writer, env []string, program ...string) (_ *bare, err error) {
	b := &bare{cmd: exec.CommandContext(ctx, program[0], program[1:]...)}
	b.cmd.Env, b.cmd.Stderr = append(os.Environ(), env...), log
	if b.asks, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	b.answers = json.NewDecoder(bufio.NewReader(out))
	if err = b.answers.Decode(b); err == nil && b.Data != "" {
		b.data, err = os.ReadFile(b.Data)
	}
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("make the model: %w", err)
	}
	return b, nil
}

func (b *bare) stop() {
	_ = b.asks.Close()
	_ = b.cmd.Wait()
}

// time returns how long each call with a batch of so many rows took, within a window.
func (b *bare) time(rows int, window time.Duration) ([]time.Duration, error) {
	if err := json.NewEncoder(b.asks).Encode(map[string]any{"rows": rows, "seconds": window.Seconds()}); err != nil {
		return nil, err
	}
	var answer struct{ Micros []float64 }
	if err := b.answers.Decode(&answer); err != nil {
		return nil, fmt.Errorf("time the framework: %w", err)
	}
	times := make([]time.Duration, len(answer.Micros))
	for i, us := range answer.Micros {
		times[i] = time.Duration(us * float64(time.Microsecond))
	}
	return times, nil
}

// batch returns the first rows as a container is sent them.
func (b *bare) batch(rows int) (*clipperv1.PredictRequest, error) {
	tensor := &clipperv1.BatchTensor{DataType: clipperv1.DataType_DATA_TYPE_STRING}
	if b.Strings != nil {
		tensor.Strings = b.Strings[:rows]
	} else {
		kind, known := clipperv1.DataType_value["DATA_TYPE_"+strings.ToUpper(b.DType)]
		if !known {
			return nil, fmt.Errorf("no tensor has elements of type %s", b.DType)
		}
		tensor.DataType, tensor.Shape, tensor.Data = clipperv1.DataType(kind), b.Shape, b.data[:len(b.data)/b.Rows*rows]
	}
	return &clipperv1.PredictRequest{Rows: uint32(rows), Inputs: []*clipperv1.BatchTensor{tensor}}, nil
}
