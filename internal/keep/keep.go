// SPDX-License-Identifier: Apache-2.0

// Package keep carries the wish that what models say about a query be remembered, however little
// else is. Like the query's priority it is of no concern to what lies between, so it travels in the
// context.
package keep

import "context"

type key struct{}

// With returns a context for a query whose predictions are to be remembered.
func With(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, true) }

// From reports whether they are.
func From(ctx context.Context) bool {
	wanted, _ := ctx.Value(key{}).(bool)
	return wanted
}
