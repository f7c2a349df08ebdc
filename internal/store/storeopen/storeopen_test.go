// SPDX-License-Identifier: Apache-2.0

package storeopen

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for name, address := range map[string]string{
		"file":       "file:" + path,
		"file again": "file://" + path,
		"redis":      storetest.StartRedis(t).URL() + "?namespace=open",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), address)
			require.NoError(t, err)
			revision, err := s.Documents().Put(t.Context(), "k", []byte("v"), 0)
			require.NoError(t, err)
			require.NoError(t, s.Documents().Delete(t.Context(), "k", revision))
			require.NoError(t, s.Close())
		})
	}
	require.FileExists(t, path)
}

func TestOpen_refusesAddress(t *testing.T) {
	for _, address := range []string{"", "file:", "store.db", "mysql://user:secret@host", "redis://user:secret@host/x", "secret"} {
		s, err := Open(t.Context(), address)
		require.Error(t, err, address)
		require.Nil(t, s)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := Open(t.Context(), "mysql://host")
	require.ErrorIs(t, err, store.ErrInvalid)
}
