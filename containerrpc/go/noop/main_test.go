// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"
)

func TestNoop(t *testing.T) {
	r, err := noop{}.Predict(t.Context(), &container.Batch{Rows: 3})
	require.NoError(t, err)
	require.Len(t, r.Outputs, 1)
	require.Len(t, r.Outputs[0].Data, 3*8)
	require.Equal(t, noop{}.Describe().Signature.Outputs[0].DataType, r.Outputs[0].DataType)
}
