// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestProblem_titles(t *testing.T) {
	for number, name := range clipperv1.ErrorReason_name {
		title, ok := titles[clipperv1.ErrorReason(number)]
		require.Equal(t, number != 0, ok, name)
		require.Equal(t, number != 0, title != "", name)
	}
}
