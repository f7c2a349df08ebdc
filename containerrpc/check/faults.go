// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func (c *checker) text(ctx context.Context) (string, error) {
	at := slices.IndexFunc(c.rows[0], func(t *clipperv1.Tensor) bool {
		return t.DataType == clipperv1.DataType_DATA_TYPE_STRING && len(t.Strings) > 0
	})
	if at < 0 {
		return "", skip("no input is text")
	}
	rows := c.repeat(c.limit(4))
	for i, words := range []string{"", "naïve 漢字 🙂", "a\x00b\n", string(make([]byte, 1<<16))} {
		if i < len(rows) {
			r := slices.Clone(c.rows[0])
			r[at] = proto.CloneOf(r[at])
			r[at].Strings[0] = words
			rows[i] = r
		}
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	return c.suffer(s, rows, "an empty, a non-ASCII, a control or a long text")
}

// suffer sends rows that may fail: the answer must be valid and the stream must go on.
func (c *checker) suffer(s *stream, rows []row, what string) (string, error) {
	resp, err := s.exchange(batchOf(1, rows))
	if err != nil {
		return "", err
	}
	if resp.Error == nil {
		if err := c.validRows(resp, len(rows)); err != nil {
			return "", err
		}
	}
	if err := c.alive(s); err != nil {
		return "", fmt.Errorf("after %s: %w", what, err)
	}
	if resp.Error != nil && len(rows) > 1 {
		return "", warn("%s failed the whole batch (%q): give row_errors, so that the other rows are answered", what, resp.Error.Message)
	}
	return fmt.Sprintf("%d of %d rows refused", len(resp.RowErrors), len(rows)), nil
}

// validRows checks an answer with errors of rows.
func (c *checker) validRows(resp *clipperv1.PredictResponse, rows int) error {
	for _, e := range resp.RowErrors {
		if e.GetError().GetCode() == 0 || e.GetError().GetMessage() == "" {
			return fmt.Errorf("the error of row %d has no code or no message: callers see them", e.Row)
		}
	}
	resp = proto.CloneOf(resp)
	errs := resp.RowErrors
	resp.RowErrors = nil
	_, err := c.outputs(resp, rows)
	if len(errs) == rows {
		return nil // No outputs are needed.
	}
	return err
}

func (c *checker) badRow(ctx context.Context) (string, error) {
	rows := c.repeat(c.limit(3))
	at := min(1, len(rows)-1)
	what := "a row that the model refuses"
	if c.Bad != nil {
		bad, err := c.sample(c.Bad)
		if err != nil {
			return "", err
		}
		rows[at] = bad
	} else {
		k := slices.IndexFunc(rows[at], func(t *clipperv1.Tensor) bool { return tolerance(t.DataType) > 0 && len(t.Data) > 0 })
		if k < 0 {
			return "", skip("give an input that the model refuses with --bad-sample")
		}
		bad := slices.Clone(rows[at])
		bad[k] = proto.CloneOf(bad[k])
		for i := range bad[k].Data {
			bad[k].Data[i] = 0xff // Not a number, in every type of float.
		}
		rows[at], what = bad, "a row of NaN"
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	return c.suffer(s, rows, what)
}

// invalid sends requests that break the contract.
func (c *checker) invalid(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	good := batchOf(5, slices.Repeat(c.rows[:1], c.limit(2)))
	elements, _ := tensor.Elements(good.Inputs[0].Shape)
	requests := []struct {
		what    string
		applies bool
		spoil   func(*clipperv1.PredictRequest)
	}{
		{"with fewer elements than its rows need", elements > 0, func(r *clipperv1.PredictRequest) {
			t := r.Inputs[0]
			t.Data, t.Strings, t.ByteStrings = t.Data[:len(t.Data)/2], t.Strings[:len(t.Strings)/2], t.ByteStrings[:len(t.ByteStrings)/2]
		}},
		{"without the input", len(c.description.GetSignature().GetInputs()) > 0, func(r *clipperv1.PredictRequest) { r.Inputs = nil }},
		{"of another type", c.typed(), func(r *clipperv1.PredictRequest) {
			t, n := r.Inputs[0], int(elements)*int(r.Rows)
			text := t.DataType == clipperv1.DataType_DATA_TYPE_STRING
			t.Data, t.Strings, t.ByteStrings = nil, nil, nil
			if text {
				t.DataType, t.Data = clipperv1.DataType_DATA_TYPE_FLOAT64, make([]byte, 8*n)
			} else {
				t.DataType, t.Strings = clipperv1.DataType_DATA_TYPE_STRING, slices.Repeat([]string{"x"}, n)
			}
		}},
		{"of 0 rows", true, func(r *clipperv1.PredictRequest) {
			r.Rows = 0
			for _, t := range r.Inputs {
				t.Data, t.Strings, t.ByteStrings = nil, nil, nil
			}
		}},
	}
	var untried []string
	for _, q := range requests {
		if !q.applies {
			untried = append(untried, q.what)
			continue
		}
		req := proto.CloneOf(good)
		q.spoil(req)
		resp, err := s.exchange(req)
		if err != nil {
			return "", fmt.Errorf("a request %s: %w", q.what, err)
		}
		if resp.Error == nil && (len(resp.RowErrors) == 0 || len(resp.RowErrors) < int(req.Rows)) {
			return "", fmt.Errorf("a request %s was answered as if it were right: answer it with an error (reason INVALID_FIELD)", q.what)
		}
		if err := c.alive(s); err != nil {
			return "", fmt.Errorf("after a request %s: %w", q.what, err)
		}
	}
	if len(untried) > 0 {
		return "", skip("by the signature, a request %s may be right, and was not tried; the others were refused, as they must be", strings.Join(untried, " or "))
	}
	return "", nil
}

// typed reports whether the signature says of which type the first input is.
func (c *checker) typed() bool {
	specs := c.description.GetSignature().GetInputs()
	return len(specs) > 0 && specs[0].DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED
}

func (c *checker) deadline(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	short := batchOf(1, c.rows[:1])
	short.TimeoutMicros = 1
	if _, err := s.exchange(short); err != nil {
		return "", fmt.Errorf("a batch whose time is over: %w", err)
	}
	long := batchOf(2, c.rows[:1])
	long.TimeoutMicros = math.MaxUint64
	resp, err := s.exchange(long)
	if err == nil {
		_, err = c.outputs(resp, 1)
	}
	if err != nil {
		return "", fmt.Errorf("a batch with the largest timeout_micros: %w", err)
	}
	return "", nil
}
