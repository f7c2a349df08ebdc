// SPDX-License-Identifier: Apache-2.0

package storebolt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

// childFile and childRun make the test binary the child of TestKill.
const (
	childFile = "CLIPPER_STOREBOLT_CHILD_FILE"
	childRun  = "CLIPPER_STOREBOLT_CHILD_RUN"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		child(path, os.Getenv(childRun))
		return
	}
	goleak.VerifyTestMain(m)
}

// child writes until it is killed, and prints what was acknowledged.
func child(path, run string) {
	db, err := Open(context.Background(), path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	storetest.WriteUntil(context.Background(), db, run, func(identity string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(identity)
	})
}

func openFile(tb testing.TB, path string) *DB {
	tb.Helper()
	db, err := Open(tb.Context(), path)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

func openTemp(tb testing.TB) *DB {
	return openFile(tb, filepath.Join(tb.TempDir(), "new", "store.db"))
}

func open(tb testing.TB) (one, other store.Store) {
	db := openTemp(tb)
	return db, db
}

func TestDocuments(t *testing.T) { storetest.Documents(t, open) }
func TestSums(t *testing.T)      { storetest.Sums(t, open) }
func TestFollower(t *testing.T)  { storetest.Follower(t, open) }

// TestKill kills a process in the middle of its writes, several times on the same
// file.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var acknowledged []string
	for run := range 4 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), childFile+"="+path, childRun+"="+strconv.Itoa(run))
		command.Stderr = os.Stderr
		out, err := command.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, command.Start())
		lines, killAfter := 0, 1+rand.IntN(3000)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			acknowledged = append(acknowledged, scanner.Text())
			if lines++; lines == killAfter {
				require.NoError(t, command.Process.Kill())
			}
		}
		require.Error(t, command.Wait(), "the child ended by itself")
		require.GreaterOrEqual(t, lines, killAfter)

		db, err := Open(t.Context(), path)
		require.NoError(t, err)
		storetest.CheckSurvivors(t, db, acknowledged)
		require.NoError(t, db.Close())
	}
}

func TestOpen_inUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	openFile(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, path)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "in use by another process")
}

func TestOpen_notAStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<16), 0o600))
	_, err := Open(t.Context(), path)
	require.ErrorContains(t, err, path)
	require.NotErrorIs(t, err, store.ErrUnavailable, "waiting does not help")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, content, 1<<16, "somebody's file was changed")
}

func TestOpen_again(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	ctx := t.Context()
	db, err := Open(ctx, path)
	require.NoError(t, err)
	first, err := db.Documents().Put(ctx, "k", []byte("v"), 0)
	require.NoError(t, err)
	require.NoError(t, db.Documents().Delete(ctx, "k", first))
	_, err = db.Documents().PutLease(ctx, "lease", []byte("v"), time.Hour)
	require.NoError(t, err)
	_, err = db.Sums().Add(ctx, "o", time.Hour, store.Update{Key: "k", Deltas: map[string]float64{"x": 0.1}})
	require.NoError(t, err)
	require.NoError(t, db.Close())

	db = openFile(t, path)
	second, err := db.Documents().Put(ctx, "k", nil, 0)
	require.NoError(t, err)
	require.NotEqual(t, first, second, "a revision came back")
	doc, err := db.Documents().Get(ctx, "lease")
	require.NoError(t, err)
	require.Positive(t, doc.TTL)
	applied, err := db.Sums().Add(ctx, "o", time.Hour, store.Update{Key: "k", Deltas: map[string]float64{"x": 0.1}})
	require.NoError(t, err)
	require.False(t, applied)
}

// TestSweep checks that what has expired also leaves the file, and what was renewed
// does not.
func TestSweep(t *testing.T) {
	db := openTemp(t)
	ctx := t.Context()
	const brief = 20 * time.Millisecond
	for i := range 50 {
		_, err := db.Sums().Add(ctx, strconv.Itoa(i), brief, store.Update{Key: "k", Deltas: map[string]float64{"x": 1}})
		require.NoError(t, err)
		_, err = db.Documents().PutLease(ctx, strconv.Itoa(i), nil, brief)
		require.NoError(t, err)
		one := map[string]float64{"x": 1}
		_, err = db.Sums().Add(ctx, "", 0, store.Update{Key: "brief" + strconv.Itoa(i), Deltas: one, TTL: brief}, store.Update{Key: "grown", Deltas: one, TTL: brief}, store.Update{Key: "kept", Deltas: one, TTL: brief})
		require.NoError(t, err)
	}
	_, err := db.Documents().PutLease(ctx, "renewed", nil, brief)
	require.NoError(t, err)
	_, err = db.Documents().PutLease(ctx, "renewed", nil, time.Hour)
	require.NoError(t, err)
	one := map[string]float64{"x": 1}
	_, err = db.Sums().Add(ctx, "long", time.Hour, store.Update{Key: "grown", Deltas: one, TTL: time.Hour}, store.Update{Key: "kept", Deltas: one})
	require.NoError(t, err)

	count := func(bucket []byte) int {
		n := 0
		require.NoError(t, db.bolt.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucket).ForEach(func(_, _ []byte) error { n++; return nil })
		}))
		return n
	}
	require.Eventually(t, func() bool {
		return count(bucketOnceIndex) == 1 && count(bucketLeases) == 1 && count(bucketLifeIndex) == 1
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, 3, count(bucketSums), "k, grown, kept")
	require.Equal(t, 1, count(bucketLives))
	require.Equal(t, 1, count(bucketOnce))
	require.Equal(t, 1, count(bucketDocuments))
	_, err = db.Documents().Get(ctx, "renewed")
	require.NoError(t, err)
	require.False(t, db.due())
}

// TestAdd_expiredIdentity checks that an identity ends on time, not when it is swept.
func TestAdd_expiredIdentity(t *testing.T) {
	db := openTemp(t)
	require.NoError(t, db.bolt.Update(func(tx *bbolt.Tx) error {
		past := binary.BigEndian.AppendUint64(nil, expiry(time.Now().Add(-time.Second)))
		return tx.Bucket(bucketOnce).Put([]byte("o"), past)
	}))
	for _, want := range []bool{true, false} {
		applied, err := db.Sums().Add(t.Context(), "o", time.Hour)
		require.NoError(t, err)
		require.Equal(t, want, applied)
	}
}

// TestCommit_corruptKey checks that a key whose bytes are spoilt fails alone, not
// with everyone who shares its transaction.
func TestCommit_corruptKey(t *testing.T) {
	db := openTemp(t)
	ctx := t.Context()
	require.NoError(t, db.bolt.Update(func(tx *bbolt.Tx) error {
		return errors.Join(
			tx.Bucket(bucketSums).Put([]byte("bad"), []byte{200, 1, 2}),
			tx.Bucket(bucketDocuments).Put([]byte("bad"), []byte{1}))
	}))
	_, err := db.Sums().Get(ctx, "bad")
	require.ErrorIs(t, err, errCorrupt)
	_, err = db.Documents().Get(ctx, "bad")
	require.ErrorIs(t, err, errCorrupt)

	one := store.Update{Key: "good", Deltas: map[string]float64{"x": 1}}
	results := make([]*write, 3)
	for i, updates := range [][]store.Update{{one}, {one, {Key: "bad", Deltas: one.Deltas}}, {one}} {
		results[i] = &write{apply: func(t *txn) error {
			_, err := t.add("", 0, updates)
			return err
		}}
	}
	db.commit(results)
	require.NoError(t, results[0].err)
	require.ErrorIs(t, results[1].err, errCorrupt)
	require.NoError(t, results[2].err)
	got, err := db.Sums().Get(ctx, "good")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"x": 2}, got)
	require.NoError(t, db.Sums().Delete(ctx, "bad"), "it can be deleted")
}

func FuzzDecodeSums(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeSums(map[string]float64{"": 1, "x": -0.5}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		sums, err := decodeSums(b)
		if err != nil {
			require.ErrorIs(t, err, errCorrupt)
			return
		}
		// What can be read is written so that it reads the same.
		written := encodeSums(sums)
		again, err := decodeSums(written)
		require.NoError(t, err)
		require.Equal(t, written, encodeSums(again))
	})
}

// TestSaveLife_index checks that sums which are added to all the time have one entry in the index.
func TestSaveLife_index(t *testing.T) {
	db := openTemp(t)
	for i := range 20 {
		_, err := db.Sums().Add(t.Context(), "", 0, store.Update{Key: "k", Deltas: map[string]float64{"x": 1}, TTL: time.Hour + time.Duration(i)*time.Second})
		require.NoError(t, err)
	}
	require.NoError(t, db.bolt.View(func(tx *bbolt.Tx) error {
		require.Equal(t, 1, tx.Bucket(bucketLifeIndex).Stats().KeyN)
		return nil
	}))
	g, err := db.Sums().Group(t.Context(), "k")
	require.NoError(t, err)
	require.Greater(t, g.TTL, time.Hour+18*time.Second)
}

// BenchmarkAdd is feedback as the selector learns from it: a once identity, the
// sums of a context and those of the application.
func BenchmarkAdd(b *testing.B) { benchmarkAdd(b, 0) }

// BenchmarkAdd_life is the same for contexts that expire.
func BenchmarkAdd_life(b *testing.B) { benchmarkAdd(b, time.Hour) }

func benchmarkAdd(b *testing.B, ttl time.Duration) {
	db := openTemp(b)
	var n atomic.Int64
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			_, err := db.Sums().Add(b.Context(), fmt.Sprintf("%016x", rand.Uint64()), time.Hour,
				store.Update{Key: "app", Deltas: map[string]float64{"n": 1, "a": 0.5, "b": 0.25}},
				store.Update{Key: fmt.Sprintf("app/%d", i%10_000), Deltas: map[string]float64{"n": 1, "a": 0.5, "b": 0.25}, TTL: ttl})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
}

// BenchmarkAdd_alone is the cost of a transaction that nobody shares.
func BenchmarkAdd_alone(b *testing.B) {
	db := openTemp(b)
	for b.Loop() {
		_, err := db.Sums().Add(b.Context(), "", 0, store.Update{Key: "k", Deltas: map[string]float64{"n": 1}})
		require.NoError(b, err)
	}
}
