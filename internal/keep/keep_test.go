// SPDX-License-Identifier: Apache-2.0

package keep_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/keep"
)

func TestFrom(t *testing.T) {
	require.False(t, keep.From(t.Context()))
	ctx, cancel := context.WithCancel(keep.With(t.Context()))
	defer cancel()
	require.True(t, keep.From(ctx))
}
