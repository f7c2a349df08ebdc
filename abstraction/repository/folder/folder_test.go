// SPDX-License-Identifier: Apache-2.0

package folder_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/repository"
	"github.com/clipper-serving/clipper/abstraction/repository/folder"
	"github.com/clipper-serving/clipper/abstraction/repository/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type place struct {
	dir    string
	writes *int
}

func (p place) Source(t *testing.T) repository.Source {
	s, err := folder.Open(p.dir)
	require.NoError(t, err)
	return s
}

func (p place) Write(t *testing.T, path, text string) {
	file := filepath.Join(p.dir, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	// The clock of a file system is coarse; each write is at a time of its own.
	*p.writes++
	at := time.Unix(int64(*p.writes), 0)
	require.NoError(t, os.Chtimes(file, at, at))
}

func (p place) Remove(t *testing.T, path string) {
	require.NoError(t, os.Remove(filepath.Join(p.dir, path)))
}

func start(t *testing.T) sourcetest.Place { return place{t.TempDir(), new(int)} }

func TestSource(t *testing.T) { sourcetest.Run(t, start) }

func TestWhatMustNotBeUsed(t *testing.T) {
	p := start(t).(place)
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("s"), 0o600))
	p.Write(t, "m/1/weights", "abc")
	in := func(path string) string { return filepath.Join(p.dir, path) }
	require.NoError(t, os.Symlink(outside, in("m/1/outside")))
	require.NoError(t, os.Symlink("../../../../../../../../etc/passwd", in("m/1/up")))
	require.NoError(t, os.Symlink("weights", in("m/1/inside")))
	require.NoError(t, os.Symlink("nowhere", in("m/1/nowhere")))
	require.NoError(t, os.Symlink("1", in("m/latest")))
	require.NoError(t, syscall.Mkfifo(in("m/1/pipe"), 0o600))
	p.Write(t, ".git/config", "")
	p.Write(t, "m/.copying/weights", "")

	files, err := p.Source(t).List(t.Context())
	require.NoError(t, err)
	refused := map[string]string{}
	for _, f := range files {
		refused[f.Path] = f.Refused
	}
	const out = "is a link that leads out of the repository or nowhere: put the file itself there"
	require.Equal(t, map[string]string{
		"m/1/weights": "", "m/1/inside": "",
		"m/1/outside": out, "m/1/up": out, "m/1/nowhere": out,
		"m/latest": "is a link to a folder: put the folder itself there",
		"m/1/pipe": "is no regular file",
	}, refused)
	_, err = p.Source(t).Read(t.Context(), repository.File{Path: "m/1/outside"})
	require.Error(t, err)
	_, err = p.Source(t).Read(t.Context(), repository.File{Path: "../x"})
	require.Error(t, err)
}

func TestAFolderThatIsNotThereIsAnError(t *testing.T) {
	s, err := folder.Open(filepath.Join(t.TempDir(), "none"))
	require.NoError(t, err)
	_, err = s.List(t.Context())
	require.ErrorContains(t, err, "the folder of the model repository cannot be read")
}
