// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemory: the process that listens is counted with those that it has started.
func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	alone := memory("unix:" + path)
	require.NotNil(t, alone)
	require.Positive(t, alone.ResidentBytes)
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	both := memory("unix://" + path)
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	require.Equal(t, alone.Processes+1, both.Processes)

	require.NoError(t, l.Close())
	require.Nil(t, memory("unix:"+path), "nobody listens")
	require.Nil(t, memory("127.0.0.1:7000"), "TCP says nothing of processes")
}
