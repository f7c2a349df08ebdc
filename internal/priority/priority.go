// SPDX-License-Identifier: Apache-2.0

// Package priority carries a query's priority to where it may have to wait. Like its deadline it is
// of no concern to what lies between, so it travels in the context.
package priority

import "context"

// Max is the least priority; 1 is the highest, and 0 the one that is given to those that have none.
const Max = 8

type key struct{}

// With returns a context for a query of this priority. What is above Max counts as Max.
func With(ctx context.Context, p uint32) context.Context {
	if p == 0 {
		return ctx
	}
	return context.WithValue(ctx, key{}, uint8(min(p, Max)))
}

// From returns the priority, 0 when there is none.
func From(ctx context.Context) uint8 {
	p, _ := ctx.Value(key{}).(uint8)
	return p
}
