// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/repository"
	"github.com/clipper-serving/clipper/abstraction/repository/s3"
	"github.com/clipper-serving/clipper/abstraction/repository/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bucket = "models"

// place is a bucket of a server of its own.
type place struct {
	backend gofakes3.Backend
	cache   string
	prefix  string
	// intercept may answer instead of the server.
	intercept atomic.Pointer[http.HandlerFunc]
	gets      atomic.Int32
}

func start(t *testing.T) *place {
	p := &place{backend: s3mem.New(), cache: t.TempDir(), prefix: "team/prod/"}
	require.NoError(t, p.backend.CreateBucket(bucket))
	fake := gofakes3.New(p.backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, p.prefix) {
			p.gets.Add(1)
		}
		if f := p.intercept.Load(); f != nil {
			(*f)(w, r)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
	return p
}

func (p *place) Source(t *testing.T) repository.Source {
	s, err := s3.Open("s3://"+bucket+"/"+p.prefix, p.cache)
	require.NoError(t, err)
	return s
}

func (p *place) Write(t *testing.T, path, text string) {
	_, err := p.backend.PutObject(bucket, p.prefix+path, map[string]string{"Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"}, strings.NewReader(text), int64(len(text)), nil)
	require.NoError(t, err)
}

func (p *place) Remove(t *testing.T, path string) {
	_, err := p.backend.DeleteObject(bucket, p.prefix+path)
	require.NoError(t, err)
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place { return start(t) })
}

func list(t *testing.T, s repository.Source) []repository.File {
	t.Helper()
	files, err := s.List(t.Context())
	require.NoError(t, err)
	return files
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	p := start(t)
	for _, name := range []string{"m/1/../../../etc/x", "m/1//x", "m/1/./x", `m/1/a\b`, "../x", "m/1/" + strings.Repeat("x", 256)} {
		p.Write(t, name, "x")
	}
	p.Write(t, "m/1/folder/", "") // What consoles make for a folder.
	p.Write(t, "m/1/weights..bin", "x")
	good := 0
	for _, f := range list(t, p.Source(t)) {
		if f.Refused == "" {
			good++
			require.Equal(t, "m/1/weights..bin", f.Path)
		}
	}
	require.Equal(t, 1, good)
	// Nor would it be written if it were not refused.
	s := p.Source(t)
	_, err := s.Fetch(t.Context(), repository.Version{Model: "m", Version: "1", Fingerprint: "f", Files: []repository.File{{Path: "m/1/../../../../../../up", Size: 1}}})
	require.Error(t, err)
	_, err = os.Stat(filepath.Join(p.cache, "..", "up"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func fetched(t *testing.T, s repository.Source, fingerprint string) (string, error) {
	return s.Fetch(t.Context(), repository.Version{Model: "m", Version: "1", Fingerprint: fingerprint, Files: list(t, s)})
}

func TestAFetchedVersionIsNotFetchedAgain(t *testing.T) {
	p := start(t)
	p.Write(t, "m/1/weights", strings.Repeat("w", 3<<20))
	s := p.Source(t)
	dir, err := fetched(t, s, "f1")
	require.NoError(t, err)
	n := p.gets.Load()
	_, err = fetched(t, s, "f1")
	require.NoError(t, err)
	require.Equal(t, n, p.gets.Load())
	// Unless somebody has touched it.
	require.NoError(t, os.Truncate(filepath.Join(dir, "weights"), 5))
	_, err = fetched(t, s, "f1")
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(dir, "weights"))
	require.NoError(t, err)
	require.EqualValues(t, 3<<20, info.Size())
}

func TestWhatIsNotKeptIsRemoved(t *testing.T) {
	p := start(t)
	p.Write(t, "m/1/weights", "w")
	s := p.Source(t)
	one, err := fetched(t, s, "f1")
	require.NoError(t, err)
	two, err := fetched(t, s, "f2")
	require.NoError(t, err)
	partial := filepath.Join(filepath.Dir(one), ".partial-1")
	require.NoError(t, os.Mkdir(partial, 0o700))
	require.NoError(t, s.Keep(nil))
	for _, dir := range []string{one, two, partial} {
		require.DirExists(t, dir, "it is young: another instance may need it")
	}
	age := func(by time.Duration) {
		at := time.Now().Add(-by)
		for _, dir := range []string{one, two, partial} {
			if _, err := os.Stat(dir); err == nil {
				require.NoError(t, os.Chtimes(dir, at, at))
			}
		}
	}
	age(2 * time.Hour)
	require.NoError(t, s.Keep([]repository.Version{{Model: "m", Version: "1", Fingerprint: "f2"}}))
	require.NoDirExists(t, one)
	require.DirExists(t, two)
	require.DirExists(t, partial)
	age(25 * time.Hour)
	require.NoError(t, s.Keep([]repository.Version{{Model: "n", Version: "1"}}))
	require.NoDirExists(t, filepath.Dir(filepath.Dir(two)), "with the folders that led to it")
}

func TestAnObjectThatIsNotAsListedIsNotUsed(t *testing.T) {
	tests := map[string]func(t *testing.T, p *place, v *repository.Version){
		"replaced meanwhile": func(t *testing.T, p *place, _ *repository.Version) { p.Write(t, "m/1/weights", "xyz") },
		"gone meanwhile":     func(t *testing.T, p *place, _ *repository.Version) { p.Remove(t, "m/1/weights") },
		"another size":       func(_ *testing.T, _ *place, v *repository.Version) { v.Files[0].Size++ },
		"other bytes": func(_ *testing.T, p *place, v *repository.Version) {
			tag := v.Files[0].Tag
			answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", `"`+tag+`"`)
				w.Header().Set("Last-Modified", "Wed, 25 Nov 2026 10:00:00 GMT")
				_, _ = w.Write([]byte("abx"))
			})
			p.intercept.Store(&answer)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			p.Write(t, "m/1/weights", "abc")
			s := p.Source(t)
			v := repository.Version{Model: "m", Version: "1", Fingerprint: "f", Files: list(t, s)}
			change(t, p, &v)
			_, err := s.Fetch(t.Context(), v)
			require.ErrorContains(t, err, "m/1/weights cannot be fetched")
			// Nothing of it is left.
			require.NoError(t, filepath.WalkDir(p.cache, func(path string, e os.DirEntry, err error) error {
				require.False(t, err == nil && !e.IsDir(), path)
				return err
			}))
		})
	}
}

func TestAnObjectAndAFolderOfTheSameName(t *testing.T) {
	p := start(t)
	p.Write(t, "m/1/a", "x")
	p.Write(t, "m/1/a/b", "x")
	_, err := fetched(t, p.Source(t), "f")
	require.ErrorContains(t, err, "an object and a folder of the same name")
}

func TestErrorsSayWhatIsWrongAndNoSecret(t *testing.T) {
	p := start(t)
	s, err := s3.Open("s3://elsewhere", p.cache)
	require.NoError(t, err)
	require.Equal(t, "s3://elsewhere", s.Location())
	_, err = s.List(t.Context())
	require.ErrorContains(t, err, "NoSuchBucket")
	denied := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>`))
	})
	p.intercept.Store(&denied)
	_, err = p.Source(t).List(t.Context())
	require.ErrorContains(t, err, "Access Denied")
	require.NotContains(t, err.Error(), "hushhush")
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("source", "source", s, "error", err)
	require.NotContains(t, log.String(), "hushhush")
}

func TestOpenRefuses(t *testing.T) {
	for _, location := range []string{"s3://", "s3:///prefix", "s3://bucket/../x"} {
		_, err := s3.Open(location, t.TempDir())
		require.ErrorContains(t, err, "model-repository", location)
	}
	t.Setenv("AWS_ENDPOINT_URL", "minio:9000")
	_, err := s3.Open("s3://bucket", t.TempDir())
	require.ErrorContains(t, err, "AWS_ENDPOINT_URL")
}
