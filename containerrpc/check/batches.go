// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"slices"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// one has each row answered alone, the first one twice.
func (c *checker) one(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	for i, r := range append(slices.Clone(c.rows), c.rows[0]) {
		resp, err := s.exchange(batchOf(uint64(i), []row{r})) //nolint:gosec // Small.
		if err != nil {
			return "", err
		}
		out, err := c.outputs(resp, 1)
		if err != nil {
			return "", err
		}
		c.alone = append(c.alone, out[0])
	}
	last := len(c.rows)
	c.unsteady = !equal(c.alone[0], c.alone[last])
	c.alone = c.alone[:last]
	return "", nil
}

func (c *checker) many(ctx context.Context) (string, error) {
	if c.description.MaxBatchRows == 1 {
		return "", skip("max_batch_rows is 1")
	}
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	for _, n := range []int{2, 7, 32} {
		n = c.limit(n)
		resp, err := s.exchange(batchOf(1, c.repeat(n)))
		if err != nil {
			return "", fmt.Errorf("a batch of %d rows: %w", n, err)
		}
		if _, err := c.outputs(resp, n); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (c *checker) same(ctx context.Context) (string, error) {
	if c.unsteady {
		return "", warn("the same row was answered differently the second time, so the order of rows cannot be checked. If the model is random on purpose, deploy it with --no-cache")
	}
	n := c.limit(2*len(c.rows) + 1)
	resp, err := c.ask(ctx, batchOf(1, c.repeat(n)))
	if err != nil {
		return "", err
	}
	out, err := c.outputs(resp, n)
	if err != nil {
		return "", err
	}
	for i := range out {
		if want := c.alone[i%len(c.rows)]; !equal(out[i], want) {
			for j, other := range c.alone {
				if j != i%len(c.rows) && equal(out[i], other) {
					return "", fmt.Errorf("row %d of a batch of %d got the answer of another row: outputs must be in the order of the rows", i, n)
				}
			}
			return "", fmt.Errorf("row %d is answered differently in a batch of %d than alone: a prediction must not depend on the other rows. Is the model in evaluation mode?", i, n)
		}
	}
	if !slices.ContainsFunc(c.alone, func(o []*clipperv1.Tensor) bool { return !equal(o, c.alone[0]) }) {
		return "all rows have the same answer, so this says nothing of their order; --sample with inputs that differ does", nil
	}
	return "", nil
}

// ragged sends rows in one batch that differ in shape and that are answered alone.
func (c *checker) ragged(ctx context.Context) (string, error) {
	specs := c.description.GetSignature().GetInputs()
	var rows []row
	if c.madeUp {
		for k := range 3 {
			rows = append(rows, makeRow(specs, k, int64(openLength+k)))
		}
		if len(specs) == 0 || !slices.ContainsFunc(specs, func(s *clipperv1.TensorSpec) bool { return slices.Contains(s.Shape, -1) }) {
			return "", skip("the signature does not say that lengths may differ; --sample with inputs that differ in shape checks it")
		}
	} else {
		rows = c.rows
		if !slices.ContainsFunc(rows, func(r row) bool {
			return slices.ContainsFunc(batchOf(0, []row{rows[0], r}).Inputs, func(b *clipperv1.BatchTensor) bool { return len(b.RowShapes) > 0 })
		}) {
			return "", skip("no two samples differ in shape")
		}
	}
	rows = rows[:c.limit(len(rows))]
	var alone [][]*clipperv1.Tensor
	for _, r := range rows {
		resp, err := c.ask(ctx, batchOf(1, []row{r}))
		if err != nil {
			return "", err
		}
		out, err := c.outputs(resp, 1)
		if err != nil {
			return "", skip("%v", err)
		}
		alone = append(alone, out[0])
	}
	resp, err := c.ask(ctx, batchOf(1, rows))
	if err != nil {
		return "", err
	}
	out, err := c.outputs(resp, len(rows))
	if err != nil {
		return "", fmt.Errorf("rows of different shapes are answered alone, but not in one batch, where row_shapes has the shape of each: %w", err)
	}
	for i := range out {
		if !c.unsteady && !equal(out[i], alone[i]) {
			return "", fmt.Errorf("row %d of a batch of rows of different shapes is answered differently than alone: cut the elements by row_shapes", i)
		}
	}
	return "", nil
}
