// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*Catalog, store.Documents) {
	t.Helper()
	db, err := storebolt.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	c := Open(db.Documents(), slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	return c, db.Documents()
}

func spec(model, version string) *clipperv1.ModelVersion {
	return &clipperv1.ModelVersion{Model: model, Version: version, Replicas: proto.Uint32(1)}
}

// view returns the view with every change that was made.
func view(t *testing.T, c *Catalog) *View {
	t.Helper()
	require.NoError(t, c.Refresh(t.Context()))
	return c.View()
}

func requireError(t *testing.T, err error, code codes.Code, reason clipperv1.ErrorReason) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code, status.Code(err), err)
	require.Equal(t, reason, apierror.Reason(err), err)
}

func TestFirstVersionIsCurrentAndALaterOnePending(t *testing.T) {
	c, _ := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), true, nil))
	m := view(t, c).Model("m")
	require.Equal(t, "v1", m.Current())
	require.Empty(t, m.Pending())
	require.WithinDuration(t, time.Now(), m.Version("v1").Spec.CreateTime.AsTime(), time.Minute)

	require.NoError(t, c.Deploy(t.Context(), spec("m", "v2"), false, nil))
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v3"), true, nil))
	m = view(t, c).Model("m")
	require.Equal(t, "v1", m.Current())
	require.Equal(t, "v2", m.Pending())
	require.Len(t, m.Versions, 3)
	require.Equal(t, "v3", m.Versions[2].Spec.Version)

	require.NoError(t, c.Promote(t.Context(), "m", "v3"))
	require.Equal(t, "v1", view(t, c).Model("m").Current(), "v3 is not the one that shall be current")
	require.NoError(t, c.Promote(t.Context(), "m", "v2"))
	require.Equal(t, "v2", view(t, c).Model("m").Current())
	require.Empty(t, c.View().Model("m").Pending())
}

func TestSetCurrentOverrulesWhatIsPending(t *testing.T) {
	c, _ := open(t)
	for _, v := range []string{"v1", "v2", "v3"} {
		require.NoError(t, c.Deploy(t.Context(), spec("m", v), false, nil))
	}
	require.NoError(t, c.SetCurrent(t.Context(), "m", "v2"))
	m := view(t, c).Model("m")
	require.Equal(t, "v2", m.Current())
	require.Empty(t, m.Pending())
	requireError(t, c.SetCurrent(t.Context(), "m", "v9"), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)
	requireError(t, c.SetCurrent(t.Context(), "x", "v1"), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND)
}

func TestUpdate(t *testing.T) {
	c, _ := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), false, nil))
	scale := func(v *clipperv1.ModelVersion) { v.Replicas = proto.Uint32(7) }
	require.NoError(t, c.Update(t.Context(), "m", "v1", "", scale))
	require.EqualValues(t, 7, view(t, c).Model("m").Version("v1").Spec.GetReplicas())
	version := func() *Version { return view(t, c).Model("m").Version("v1") }
	etag := version().Etag()
	require.NoError(t, c.Update(t.Context(), "m", "v1", etag, scale))
	requireError(t, c.Update(t.Context(), "m", "v1", etag, scale), codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT)
	require.NotEqual(t, etag, version().Etag())
	requireError(t, c.Update(t.Context(), "m", "v2", "", scale), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)
	requireError(t, c.Update(t.Context(), "x", "v1", "", scale), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND)
}

func TestDelete(t *testing.T) {
	c, docs := open(t)
	ctx := t.Context()
	remove := func(version string) {
		t.Helper()
		v := view(t, c).Model("m").Version(version)
		require.True(t, v.Deleting)
		require.NoError(t, c.Remove(ctx, v))
		require.NoError(t, c.Settle(ctx, view(t, c)))
	}
	require.NoError(t, c.Deploy(ctx, spec("m", "v1"), false, nil))
	require.NoError(t, c.Deploy(ctx, spec("m", "v2"), false, nil))
	_, err := c.Delete(ctx, "m", "v9")
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)
	_, err = c.Delete(ctx, "x", "v1")
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND)
	_, err = c.Delete(ctx, "m", "v1")
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_IN_USE)
	require.ErrorContains(t, err, `"v2"`)

	first, err := c.Delete(ctx, "m", "v2")
	require.NoError(t, err)
	again, err := c.Delete(ctx, "m", "v2")
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Empty(t, view(t, c).Model("m").Pending(), "a version that goes is not to become current")
	requireError(t, c.SetCurrent(ctx, "m", "v2"), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)
	requireError(t, c.Update(ctx, "m", "v2", "", func(*clipperv1.ModelVersion) {}), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)
	err = c.Deploy(ctx, spec("m", "v2"), false, nil)
	requireError(t, err, codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS)
	require.ErrorContains(t, err, "is being removed: try again")

	// Deployed again before the mark is gone, it is another version.
	require.NoError(t, c.Remove(ctx, view(t, c).Model("m").Version("v2")))
	require.NoError(t, c.Deploy(ctx, spec("m", "v2"), false, nil))
	require.False(t, view(t, c).Model("m").Version("v2").Deleting)
	require.NoError(t, c.Settle(ctx, c.View()))
	second, err := c.Delete(ctx, "m", "v2")
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	remove("v2")

	_, err = c.Delete(ctx, "m", "v1")
	require.NoError(t, err, "the current version may go when it is the last")
	remove("v1")
	left, err := docs.List(ctx, prefix)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestDeleteModel(t *testing.T) {
	c, docs := open(t)
	ctx := t.Context()
	_, err := c.DeleteModel(ctx, "m")
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND)
	require.NoError(t, c.Deploy(ctx, spec("m", "v1"), false, nil))
	require.NoError(t, c.Deploy(ctx, spec("m", "v2"), false, nil))
	require.NoError(t, c.Deploy(ctx, spec("m-2", "v1"), false, nil))
	uids, err := c.DeleteModel(ctx, "m")
	require.NoError(t, err)
	require.Len(t, uids, 2)
	for _, v := range view(t, c).Model("m").Versions {
		require.NoError(t, c.Remove(ctx, v))
	}
	require.NoError(t, c.Settle(ctx, view(t, c)))
	left, err := docs.List(ctx, prefix)
	require.NoError(t, err)
	require.Len(t, left, 2)
	require.Nil(t, view(t, c).Model("m"))
	require.Equal(t, "v1", c.View().Model("m-2").Current())
}

func TestSettleHealsWhatADeadWriterLeft(t *testing.T) {
	c, docs := open(t)
	ctx := t.Context()
	require.NoError(t, c.Deploy(ctx, spec("m", "v1"), false, nil))
	require.NoError(t, c.Deploy(ctx, spec("m", "v2"), false, nil))
	require.NoError(t, docs.Delete(ctx, modelKey("m"), 0))
	require.Equal(t, "v2", view(t, c).Model("m").Current(), "known before it is written")
	require.NoError(t, c.Settle(ctx, c.View()))
	_, err := docs.Get(ctx, modelKey("m"))
	require.NoError(t, err)

	require.NoError(t, docs.Delete(ctx, versionKey("m", "v2"), 0))
	require.NoError(t, c.Settle(ctx, view(t, c)))
	require.Equal(t, "v1", view(t, c).Model("m").document.Current)

	stale := c.View()
	require.NoError(t, docs.Delete(ctx, versionKey("m", "v1"), 0))
	gone := view(t, c)
	require.NoError(t, c.Deploy(ctx, spec("m", "v3"), false, nil))
	require.NoError(t, c.Settle(ctx, gone), "a view that is too old changes nothing")
	require.NoError(t, c.Settle(ctx, stale))
	require.NoError(t, c.Settle(ctx, view(t, c)))
	require.Equal(t, "v3", view(t, c).Model("m").document.Current)
}

// brokenPut fails the writes of models, as a store that goes away in the middle.
type brokenPut struct{ store.Documents }

func (b brokenPut) Put(ctx context.Context, key string, value []byte, expect store.Revision) (store.Revision, error) {
	if key == modelKey("m") {
		return 0, store.ErrUnavailable
	}
	return b.Documents.Put(ctx, key, value, expect)
}

func TestADeployThatFailsLeavesNothing(t *testing.T) {
	c, docs := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), false, nil))
	broken := Open(brokenPut{docs}, slog.New(slog.DiscardHandler))
	defer broken.Close()
	requireError(t, broken.Deploy(t.Context(), spec("m", "v2"), false, nil), codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v2"), false, nil))
}

func TestADocumentThatCannotBeReadHidesNoOther(t *testing.T) {
	c, docs := open(t)
	_, err := docs.Put(t.Context(), versionKey("bad", "v1"), []byte("{"), 0)
	require.NoError(t, err)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), false, nil))
	require.NotNil(t, view(t, c).Model("m"))
	_, err = c.DeleteModel(t.Context(), "bad")
	requireError(t, err, codes.Internal, clipperv1.ErrorReason_ERROR_REASON_INTERNAL)
}

func TestConcurrentDeploysOfAVersionHaveOneWinner(t *testing.T) {
	c, _ := open(t)
	errs := make([]error, 16)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = c.Deploy(t.Context(), spec("m", "v1"), false, nil) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		requireError(t, err, codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS)
	}
	require.Equal(t, 1, won)
}

func TestConcurrentUpdatesAreAllKept(t *testing.T) {
	c, _ := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), false, nil))
	var all sync.WaitGroup
	for range 5 { // fewer than maxAttempts, so that none can give up
		all.Go(func() {
			require.NoError(t, c.Update(t.Context(), "m", "v1", "", func(v *clipperv1.ModelVersion) {
				v.Replicas = proto.Uint32(v.GetReplicas() + 1)
			}))
		})
	}
	all.Wait()
	require.EqualValues(t, 6, view(t, c).Model("m").Version("v1").Spec.GetReplicas())
}

// TestAdministrationAtTheSameTime runs random changes by several administrators while
// another settles and removes. Whatever happens, a current version that was not removed
// exists as long as any does.
func TestAdministrationAtTheSameTime(t *testing.T) {
	c, docs := open(t)
	ctx := t.Context()
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 14), 1, 8), 2, 4).Draw(rt, "administrators")
		var admins sync.WaitGroup
		for _, steps := range script {
			admins.Go(func() {
				for _, step := range steps {
					version := fmt.Sprint("v", step%3)
					switch step / 3 {
					case 0, 1:
						_ = c.Deploy(ctx, spec("m", version), step/3 == 1, nil)
					case 2:
						_ = c.SetCurrent(ctx, "m", version)
					case 3:
						_, _ = c.Delete(ctx, "m", version)
					case 4:
						_ = c.Promote(ctx, "m", version)
					}
				}
			})
		}
		stop := make(chan struct{})
		stopped := make(chan struct{})
		pass := func() {
			if err := c.Refresh(ctx); err != nil {
				rt.Error(err)
			}
			v := c.View()
			if m := v.Model("m"); m != nil {
				for _, doc := range m.Versions {
					if doc.Deleting {
						_ = c.Remove(ctx, doc)
					}
				}
			}
			if err := c.Settle(ctx, v); err != nil {
				rt.Error(err)
			}
		}
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					pass()
				}
			}
		}()
		admins.Wait()
		close(stop)
		<-stopped
		pass()
		pass()
		if err := c.Refresh(ctx); err != nil {
			rt.Fatal(err)
		}
		if m := c.View().Model("m"); m != nil {
			if m.Version(m.document.Current) == nil || len(m.document.Deleting) > 0 {
				rt.Fatalf("not settled: %+v with %d versions", m.document, len(m.Versions))
			}
			if p := m.document.Pending; p != "" && m.Version(p) == nil {
				rt.Fatalf("pending version %q does not exist", p)
			}
			if _, err := c.DeleteModel(ctx, "m"); err != nil {
				rt.Fatal(err)
			}
			pass()
			pass()
		}
		left, err := docs.List(ctx, prefix)
		if err != nil || len(left) > 0 {
			rt.Fatalf("left %v, error %v", left, err)
		}
	})
}

func TestViewIsOfTheNewestDocuments(t *testing.T) {
	c, _ := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("b", "v1"), false, nil))
	v := view(t, c)
	require.True(t, v.Synced())
	require.Same(t, v, c.View())
	require.NoError(t, c.Deploy(t.Context(), spec("a.b", "v1"), false, nil))
	require.NoError(t, c.Deploy(t.Context(), spec("a", "v1"), false, nil))
	require.NoError(t, c.Refresh(t.Context()))
	<-v.Replaced()
	var got []string
	for _, m := range c.View().Models {
		got = append(got, m.Name)
		require.Len(t, m.Versions, 1)
	}
	require.Equal(t, []string{"a", "a.b", "b"}, got)
	require.Nil(t, c.View().Model("zz"))
	require.Nil(t, c.View().Model("a").Version("v2"))
}

func TestPruneKeepsAsManyOldVersionsAsTheModelSays(t *testing.T) {
	c, _ := open(t)
	names := func() (live []string) {
		for _, v := range view(t, c).Model("m").Versions {
			if !v.Deleting {
				live = append(live, v.Spec.Version)
			}
		}
		return live
	}
	prune := func() []string {
		surplus := view(t, c).Model("m").Surplus()
		pruned, err := c.Prune(t.Context(), "m")
		require.NoError(t, err)
		require.Equal(t, surplus, len(pruned) > 0)
		return pruned
	}
	for _, v := range []string{"v1", "v2", "v3", "v4"} {
		require.NoError(t, c.Deploy(t.Context(), spec("m", v), true, nil))
	}
	require.NoError(t, c.SetCurrent(t.Context(), "m", "v4"))
	require.Empty(t, prune(), "nothing was said")
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v5"), false, proto.Uint32(2)))
	require.Empty(t, prune(), "v5 is not current yet")
	require.NoError(t, c.Promote(t.Context(), "m", "v5"))
	require.Equal(t, []string{"v2", "v1"}, prune())
	require.Equal(t, []string{"v3", "v4", "v5"}, names())
	require.Empty(t, prune())

	// Going back keeps the way forward, and the setting stays.
	require.NoError(t, c.SetCurrent(t.Context(), "m", "v3"))
	require.Empty(t, prune())
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v6"), false, nil))
	require.NoError(t, c.Promote(t.Context(), "m", "v6"))
	require.EqualValues(t, 2, *view(t, c).Model("m").Keep())
	require.Equal(t, []string{"v3"}, prune())
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v7"), false, proto.Uint32(0)))
	require.NoError(t, c.Promote(t.Context(), "m", "v7"))
	require.Equal(t, []string{"v6", "v5", "v4"}, prune())
	require.Equal(t, []string{"v7"}, names())
}
