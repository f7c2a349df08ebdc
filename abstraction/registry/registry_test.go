// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a store that can be away.
type away struct {
	store.Documents
	err error
}

func (a *away) PutLease(ctx context.Context, key string, value []byte, ttl time.Duration) (store.Revision, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Documents.PutLease(ctx, key, value, ttl)
}

func open(t *testing.T) (*Registry, *away) {
	t.Helper()
	db, err := storebolt.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	docs := &away{Documents: db.Documents()}
	r := Open(docs, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		r.Close()
		require.NoError(t, db.Close())
	})
	return r, docs
}

func TestRegistry(t *testing.T) {
	r, _ := open(t)
	ctx := t.Context()
	m, other := Name{"m", "v1"}, Name{"m", "v2"}
	require.NoError(t, r.Register(ctx, m, "b", "10.0.0.2:1", time.Hour))
	require.NoError(t, r.Register(ctx, m, "a", "10.0.0.1:1", time.Hour))
	require.NoError(t, r.Register(ctx, other, "a", "10.0.0.3:1", time.Hour))
	require.NoError(t, r.Register(ctx, m, "b", "10.0.0.9:1", time.Hour), "it moves")
	require.NoError(t, r.Refresh(ctx))
	require.Equal(t, map[Name][]Replica{
		m:     {{ID: "a", Address: "10.0.0.1:1", of: m}, {ID: "b", Address: "10.0.0.9:1", of: m}},
		other: {{ID: "a", Address: "10.0.0.3:1", of: other}},
	}, r.View().Replicas)

	before := r.View()
	require.NoError(t, r.Remove(ctx, m, "a"))
	require.NoError(t, r.Remove(ctx, m, "a"), "gone is gone")
	<-before.Replaced()

	require.NoError(t, r.Register(ctx, other, "brief", "10.0.0.4:1", MinLease))
	require.NoError(t, r.Refresh(ctx))
	require.Len(t, r.View().Replicas[other], 2)
	for v := r.View(); len(v.Replicas[other]) > 1; v = r.View() { // Its lease ends.
		<-v.Replaced()
	}
}

func TestRegistry_limits(t *testing.T) {
	r, docs := open(t)
	ctx := t.Context()
	fill := func(of Name, n int) {
		for i := range n {
			_, err := docs.PutLease(ctx, of.key(fmt.Sprintf("r%d", i)), []byte(`{"address":"10.0.0.1:1"}`), time.Hour)
			require.NoError(t, err)
		}
	}
	full := Name{"full", "v1"}
	fill(full, maxPerVersion)
	err := r.Register(ctx, full, "one-more", "10.0.0.1:1", time.Hour)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "256 registered replicas")
	require.NotNil(t, apierror.ToProto(err).RetryAfter)
	require.NoError(t, r.Register(ctx, full, "r7", "10.0.0.1:1", time.Hour), "those that are there are renewed")
	require.NoError(t, r.Register(ctx, Name{"m", "v1"}, "r", "10.0.0.1:1", time.Hour))
}

func TestRegistry_storeIsAway(t *testing.T) {
	r, docs := open(t)
	docs.err = store.ErrUnavailable
	err := r.Register(t.Context(), Name{"m", "v1"}, "r", "10.0.0.1:1", time.Hour)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, apierror.Reason(err))
}

func TestDecode(t *testing.T) {
	for _, d := range []store.Document{
		{Key: prefix + "m/v1/r", Value: []byte("{")},
		{Key: prefix + "m/v1", Value: []byte("{}")},
		{Key: prefix + "m/v1/r/x", Value: []byte("{}")},
	} {
		_, err := decode(d)
		require.Error(t, err, d.Key)
	}
}
