// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(tb testing.TB, dir string, limit int64) *Journal {
	tb.Helper()
	j, err := Open(dir, limit)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, j.Close()) })
	return j
}

func contents(tb require.TestingT, j *Journal) []string {
	var all []string
	require.NoError(tb, j.Each(func(r []byte) error {
		all = append(all, string(r))
		return nil
	}))
	return all
}

// takeAll takes everything.
func takeAll(tb require.TestingT, j *Journal, most int) (all []string, unreadable int64) {
	for !j.Empty() {
		n, err := j.Take(most, func(records [][]byte) error {
			require.LessOrEqual(tb, len(records), most)
			for _, r := range records {
				all = append(all, string(r))
			}
			return nil
		})
		require.NoError(tb, err)
		unreadable += n
	}
	return all, unreadable
}

func files(tb testing.TB, dir string) []string {
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	require.NoError(tb, err)
	return names
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	j := open(t, dir, 1<<20)
	require.True(t, j.Empty())
	for _, r := range []string{"a", "b", "c"} {
		require.NoError(t, j.Append(t.Context(), []byte(r)))
	}
	require.EqualValues(t, 3*(headerSize+1), j.Size())
	require.Equal(t, []string{"a", "b", "c"}, contents(t, j))
	require.NoError(t, j.Append(t.Context(), []byte("d")))

	// After an error all come again.
	failure := errors.New("not now")
	seen := 0
	_, err := j.Take(1, func([][]byte) error {
		if seen++; seen == 2 {
			return failure
		}
		return nil
	})
	require.ErrorIs(t, err, failure)
	all, unreadable := takeAll(t, j, 2)
	require.Equal(t, []string{"a", "b", "c", "d"}, all)
	require.Zero(t, unreadable)
	require.Zero(t, j.Size())
	require.Empty(t, files(t, dir))
	n, err := j.Take(1, func([][]byte) error { return failure })
	require.NoError(t, err, "there is nothing to take")
	require.Zero(t, n)

	require.Error(t, j.Append(t.Context(), nil))
	require.NoError(t, j.Close())
	require.ErrorIs(t, j.Append(t.Context(), []byte("e")), ErrClosed)
}

func TestJournal_limit(t *testing.T) {
	j := open(t, t.TempDir(), 3*(headerSize+10))
	ten := []byte(strings.Repeat("x", 10))
	for range 3 {
		require.NoError(t, j.Append(t.Context(), ten))
	}
	require.ErrorIs(t, j.Append(t.Context(), ten), ErrFull)
	takeAll(t, j, 10)
	require.NoError(t, j.Append(t.Context(), ten), "there is room again")
}

func TestJournal_locked(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 1<<20)
	_, err := Open(dir, 1<<20)
	require.ErrorContains(t, err, "another process")
	require.NoError(t, j.Close())
	open(t, dir, 1<<20)
}

func TestJournal_segments(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 64<<20)
	large := strings.Repeat("x", segmentSize/2)
	for i := range 5 {
		require.NoError(t, j.Append(t.Context(), []byte(fmt.Sprint(i)+large)))
	}
	require.Greater(t, len(files(t, dir)), 1)
	require.NoError(t, j.Close())
	j = open(t, dir, 64<<20)
	require.NoError(t, j.Append(t.Context(), []byte("5")))
	all, _ := takeAll(t, j, 100)
	require.Len(t, all, 6)
	for i, r := range all {
		require.Equal(t, byte('0'+i), r[0])
	}
}

// TestJournal_failingDisk: what cannot be written is refused, what was written before stays, and it goes on in
// another file.
func TestJournal_failingDisk(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 1<<20)
	fail := func() {
		t.Helper()
		j.mu.Lock()
		defer j.mu.Unlock()
		require.NoError(t, j.current.file.Close()) // Writing to it fails from now on.
	}
	require.NoError(t, j.Append(t.Context(), []byte("a")))
	fail()
	require.ErrorIs(t, j.Append(t.Context(), []byte("lost")), os.ErrClosed)
	require.NoError(t, j.Append(t.Context(), []byte("b")))
	require.Equal(t, []string{"a", "b"}, contents(t, j))
	require.Len(t, files(t, dir), 2)

	// A file without any record is not left behind.
	j.mu.Lock()
	j.current = &segment{path: filepath.Join(dir, "empty"+suffix)}
	file, err := os.Create(j.current.path)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	j.current.file = file
	j.mu.Unlock()
	require.ErrorIs(t, j.Append(t.Context(), []byte("lost")), os.ErrClosed)
	require.Len(t, files(t, dir), 2)

	// Nor does it matter that somebody removes one.
	require.NoError(t, os.Remove(files(t, dir)[0]))
	all, unreadable := takeAll(t, j, 10)
	require.Equal(t, []string{"b"}, all)
	require.EqualValues(t, headerSize+1, unreadable)
}

// TestJournal_damage cuts and changes the file at every place: the records before that are there, no other
// is made up, and what follows can be written and read.
func TestJournal_damage(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 1<<20)
	for _, r := range []string{"first", "second", "third"} {
		require.NoError(t, j.Append(t.Context(), []byte(r)))
	}
	require.NoError(t, j.Close())
	path := files(t, dir)[0]
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	ends := []int{headerSize + 5, 2*headerSize + 11, 3*headerSize + 16}
	require.Len(t, whole, ends[2])
	for at := range whole {
		for name, damaged := range map[string][]byte{
			"cut":     whole[:at],
			"changed": append(append(slices.Clone(whole[:at]), whole[at]^0x10), whole[at+1:]...),
			"zeros":   append(slices.Clone(whole[:at]), make([]byte, 64)...),
		} {
			require.NoError(t, os.WriteFile(path, damaged, 0o600))
			j, err := Open(dir, 1<<20)
			require.NoError(t, err)
			require.NoError(t, j.Append(t.Context(), []byte("later")))
			want := []string{"first", "second", "third"}[:slices.IndexFunc(ends, func(end int) bool { return at < end })]
			all, unreadable := takeAll(t, j, 2)
			require.Equal(t, append(want, "later"), all, "%s at %d", name, at)
			require.Equal(t, name != "cut" || at != 0 && !slices.Contains(ends, at), unreadable > 0, "%s at %d", name, at)
			require.NoError(t, j.Close())
			require.Empty(t, files(t, dir))
		}
	}
}

// TestJournal_concurrent appends from many goroutines while another takes: every record that was
// acknowledged is taken once.
func TestJournal_concurrent(t *testing.T) {
	j := open(t, t.TempDir(), 64<<20)
	const writers, each = 16, 50
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := j.Append(t.Context(), fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() {
		writing.Wait()
		close(written)
	}()
	seen := map[string]int{}
	take := func() {
		all, _ := takeAll(t, j, 7)
		for _, r := range all {
			seen[r]++
		}
	}
	for done := false; !done; {
		select {
		case <-written:
			done = true
		default:
		}
		take()
	}
	require.Len(t, seen, writers*each)
	for r, n := range seen {
		require.Equal(t, 1, n, r)
	}
}

// TestJournal_model compares with a list, over any order of calls and of starts.
func TestJournal_model(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		dir := outer.TempDir()
		j, err := Open(dir, 1<<20)
		require.NoError(t, err)
		defer func() { require.NoError(t, j.Close()) }()
		var want []string
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				r := rapid.StringN(1, 50, -1).Draw(t, "record")
				require.NoError(t, j.Append(context.Background(), []byte(r)))
				want = append(want, r)
			},
			"take": func(t *rapid.T) {
				all, _ := takeAll(t, j, rapid.IntRange(1, 3).Draw(t, "most"))
				require.Equal(t, want, all)
				want = nil
			},
			"open again": func(t *rapid.T) {
				require.NoError(t, j.Close())
				j, err = Open(dir, 1<<20)
				require.NoError(t, err)
			},
			"": func(t *rapid.T) {
				require.Equal(t, want, contents(t, j))
				require.Equal(t, len(want) == 0, j.Empty())
			},
		})
	})
}

// FuzzRead looks for files that crash the reader or make it lose count.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &segment{path: filepath.Join(t.TempDir(), "file")}
		require.NoError(t, os.WriteFile(s.path, content, 0o600))
		records, unreadable, err := s.read()
		require.NoError(t, err)
		total := int(unreadable)
		for _, r := range records {
			total += headerSize + len(r)
		}
		require.Len(t, content, total)
	})
}
