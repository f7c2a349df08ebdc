// SPDX-License-Identifier: Apache-2.0

// Package catalog keeps which models and versions there are: documents in the store
// that any number of administrators may change at the same time.
//
// A version is a document of its own, models/<name>/versions/<version>. Which version
// is current, which shall be, and which are being removed is in the model's
// document, models/<name>, so that these decisions are made by compare-and-swap on
// one document and never contradict each other. Two documents cannot be written
// at once: a model's document can lag behind its versions when a writer dies in
// between, and [Catalog.Settle] then sets it right.
package catalog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
)

const (
	prefix     = "models/"
	versionsIn = "/versions/"

	// maxAttempts bounds how often a change is tried again after somebody else changed
	// the same document.
	maxAttempts = 10

	// undoTimeout bounds the attempt to take back half a deploy.
	undoTimeout = 2 * time.Second
)

func modelKey(model string) string            { return prefix + model }
func versionKey(model, version string) string { return prefix + model + versionsIn + version }

// Catalog reads and changes the documents. Its methods return errors that are fit to
// be shown to callers. Safe for concurrent use.
type Catalog struct {
	docs     store.Documents
	log      *slog.Logger
	follower *store.Follower[document]
	view     atomic.Pointer[View]
}

// Open follows the documents. The caller closes the catalog.
func Open(docs store.Documents, log *slog.Logger) *Catalog {
	return &Catalog{docs: docs, log: log, follower: store.Follow(docs, prefix, decode, store.FollowConfig{Log: log})}
}

// Close stops following. The last view stays readable.
func (c *Catalog) Close() { c.follower.Close() }

// document is one of the two kinds.
type document struct {
	model   *modelDocument
	version *versionDocument
}

// modelDocument is the JSON of models/<name>.
type modelDocument struct {
	// Current is the version that answers queries which do not name one.
	Current string `json:"current"`
	// Pending becomes current when it has a replica that is ready.
	Pending string `json:"pending,omitempty"`
	// Deleting has the UID of each version that is being removed. It has no meaning for a
	// version that is deployed again under the same name.
	Deleting map[string]string `json:"deleting,omitempty"`
	// Keep is how many versions are kept that were deployed before the current one; nil for all.
	Keep *uint32 `json:"keep,omitempty"`
}

func (m modelDocument) equal(o modelDocument) bool {
	return m.Current == o.Current && m.Pending == o.Pending && maps.Equal(m.Deleting, o.Deleting) &&
		(m.Keep == nil) == (o.Keep == nil) && (m.Keep == nil || *m.Keep == *o.Keep)
}

// versionDocument is the JSON of models/<name>/versions/<version>.
type versionDocument struct {
	// UID tells a version from one of the same name that was removed.
	UID string `json:"uid"`
	// Version is a ModelVersion without what the server computes.
	Version json.RawMessage `json:"version"`

	spec *clipperv1.ModelVersion
}

func decode(d store.Document) (document, error) {
	if strings.Contains(d.Key, versionsIn) {
		v, err := decodeVersion(d.Value)
		return document{version: v}, err
	}
	m, err := decodeModel(d.Value)
	return document{model: m}, err
}

func decodeModel(value []byte) (*modelDocument, error) {
	m := &modelDocument{}
	if err := json.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("decode model: %w", err)
	}
	return m, nil
}

func decodeVersion(value []byte) (*versionDocument, error) {
	v := &versionDocument{spec: &clipperv1.ModelVersion{}}
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("decode version: %w", err)
	}
	// A newer server may have written fields that this one does not know.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(v.Version, v.spec); err != nil {
		return nil, fmt.Errorf("decode version: %w", err)
	}
	return v, nil
}

func (v *versionDocument) encode() ([]byte, error) {
	var err error
	if v.Version, err = protojson.Marshal(v.spec); err != nil {
		return nil, fmt.Errorf("encode version: %w", err)
	}
	return json.Marshal(v)
}

// Deploy records a new version, which has been checked and has its defaults. The version
// becomes current when it is the model's first, and otherwise the one that shall be
// unless keepCurrent is set. From then on the model keeps keepVersions versions that are older than the
// current one, if that is given.
func (c *Catalog) Deploy(ctx context.Context, spec *clipperv1.ModelVersion, keepCurrent bool, keepVersions *uint32) error {
	spec = proto.CloneOf(spec)
	spec.CreateTime = timestamppb.New(time.Now())
	value, err := (&versionDocument{UID: rand.Text(), spec: spec}).encode()
	if err != nil {
		return c.failed(err)
	}
	revision, err := c.docs.Put(ctx, versionKey(spec.Model, spec.Version), value, 0)
	if errors.Is(err, store.ErrConflict) {
		return c.exists(ctx, spec.Model, spec.Version)
	}
	if err != nil {
		return c.failed(err)
	}
	err = c.changeModel(ctx, spec.Model, func(m *modelDocument) error {
		switch {
		case m.Current == "":
			m.Current = spec.Version
		case m.Current != spec.Version && !keepCurrent:
			m.Pending = spec.Version
		}
		if keepVersions != nil {
			m.Keep = keepVersions
		}
		return nil
	})
	if err != nil {
		// A deploy that fails leaves nothing, so that it can be tried again.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if undoErr := c.docs.Delete(undo, versionKey(spec.Model, spec.Version), revision); undoErr != nil {
			c.log.Warn("version recorded by a deploy that failed", "model", spec.Model, "version", spec.Version, "error", undoErr)
		}
	}
	return err
}

// exists says that a model has a version already, or still.
func (c *Catalog) exists(ctx context.Context, model, version string) error {
	what := "model %q has a version %q already; versions are immutable: choose another name"
	if m, _, err := c.getModel(ctx, model); err == nil {
		if _, _, err := c.getVersion(ctx, m, model, version); apierror.Reason(err) == clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND {
			what = "model %q still has a version %q, which is being removed: try again, or choose another name"
		}
	}
	return apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version", what, model, version)
}

// Update changes how a version runs, if its etag is the given one, or that is empty. change may be called several
// times.
func (c *Catalog) Update(ctx context.Context, model, version, etag string, change func(*clipperv1.ModelVersion)) error {
	for range maxAttempts {
		m, _, err := c.getModel(ctx, model)
		if err != nil {
			return err
		}
		doc, revision, err := c.getVersion(ctx, m, model, version)
		if err != nil {
			return err
		}
		if etag != "" && etag != etagOf(revision) {
			return apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "etag",
				"version %q of model %q was changed since: its etag is %q now, not %q", version, model, etagOf(revision), etag)
		}
		change(doc.spec)
		value, err := doc.encode()
		if err != nil {
			return c.failed(err)
		}
		_, err = c.docs.Put(ctx, versionKey(model, version), value, revision)
		if !errors.Is(err, store.ErrConflict) {
			return c.failed(err)
		}
	}
	return conflict(model)
}

// SetCurrent makes a version the current one, whatever was to become it.
func (c *Catalog) SetCurrent(ctx context.Context, model, version string) error {
	return c.changeModel(ctx, model, func(m *modelDocument) error {
		if _, _, err := c.getVersion(ctx, m, model, version); err != nil {
			return err
		}
		m.Current, m.Pending = version, ""
		return nil
	})
}

// Promote makes a version the current one if it is still the one that shall be.
func (c *Catalog) Promote(ctx context.Context, model, version string) error {
	return c.changeModel(ctx, model, func(m *modelDocument) error {
		if m.Pending == version {
			m.Current, m.Pending = version, ""
		}
		return nil
	})
}

// Prune marks the versions as being removed that are older than the model keeps, and returns them. While a
// version shall become current there are none, since the one before is still needed.
func (c *Catalog) Prune(ctx context.Context, model string) (pruned []string, err error) {
	err = c.changeModel(ctx, model, func(m *modelDocument) error {
		versions, err := c.listVersions(ctx, model)
		if err != nil {
			return err
		}
		pruned = m.surplus(versions)
		for _, version := range pruned {
			m.remove(version, versions[version].UID)
		}
		return nil
	})
	return pruned, err
}

// surplus returns the versions that are older than the model keeps.
func (m *modelDocument) surplus(versions map[string]*versionDocument) []string {
	current := versions[m.Current]
	if m.Keep == nil || m.Pending != "" || current == nil {
		return nil
	}
	made := func(v *versionDocument) time.Time { return v.spec.CreateTime.AsTime() }
	var older []string
	for name, v := range versions {
		if m.Deleting[name] != v.UID && made(v).Before(made(current)) {
			older = append(older, name)
		}
	}
	slices.SortFunc(older, func(a, b string) int { return made(versions[b]).Compare(made(versions[a])) })
	return older[min(len(older), int(*m.Keep)):]
}

// Delete marks a version as being removed; [Catalog.Remove] does it. It returns the
// version's UID. A version that is being removed already is no error.
func (c *Catalog) Delete(ctx context.Context, model, version string) (uid string, err error) {
	err = c.changeModel(ctx, model, func(m *modelDocument) error {
		versions, err := c.listVersions(ctx, model)
		if err != nil {
			return err
		}
		doc, ok := versions[version]
		if !ok {
			return m.notFound(model, version)
		}
		uid = doc.UID
		if m.Current == version && m.Deleting[version] != uid {
			for other, o := range versions {
				if other != version && m.Deleting[other] != o.UID {
					return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_IN_USE, "version",
						"version %q is the current version of model %q: make another one current first, for instance %q, or delete the model", version, model, other)
				}
			}
		}
		m.remove(version, uid)
		return nil
	})
	return uid, err
}

// DeleteModel marks every version of a model as being removed and returns their UIDs by
// version.
func (c *Catalog) DeleteModel(ctx context.Context, model string) (uids map[string]string, err error) {
	err = c.changeModel(ctx, model, func(m *modelDocument) error {
		versions, err := c.listVersions(ctx, model)
		if err != nil {
			return err
		}
		if len(versions) == 0 {
			return ModelNotFound(model)
		}
		uids = map[string]string{}
		for version, doc := range versions {
			uids[version] = doc.UID
			m.remove(version, doc.UID)
		}
		return nil
	})
	return uids, err
}

func (m *modelDocument) notFound(model, version string) error {
	if m.Current == "" {
		return ModelNotFound(model)
	}
	return VersionNotFound(model, version)
}

func (m *modelDocument) remove(version, uid string) {
	if m.Pending == version {
		m.Pending = ""
	}
	if m.Deleting == nil {
		m.Deleting = map[string]string{}
	}
	m.Deleting[version] = uid
}

// Remove removes the document of a version that is being removed, and what was learned about it. If
// it is gone, that is no error.
func (c *Catalog) Remove(ctx context.Context, v *Version) error {
	if err := c.forget(ctx, v.Spec.Model, v.Spec.Version); err != nil {
		return err
	}
	err := c.docs.Delete(ctx, versionKey(v.Spec.Model, v.Spec.Version), v.revision)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Settle sets the documents of models right that do not fit their versions, as the view
// has them. It returns the first error, after trying all.
func (c *Catalog) Settle(ctx context.Context, view *View) error {
	var errs []error
	for _, m := range view.Models {
		want := m.settled()
		if m.revision != 0 && len(m.Versions) > 0 && want.equal(m.document) {
			continue
		}
		var err error
		if len(m.Versions) == 0 {
			err = c.docs.Delete(ctx, modelKey(m.Name), m.revision)
		} else {
			var value []byte
			if value, err = json.Marshal(want); err == nil {
				_, err = c.docs.Put(ctx, modelKey(m.Name), value, m.revision)
			}
		}
		// Somebody else was first: the next view tells.
		if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			errs = append(errs, fmt.Errorf("settle model %s: %w", m.Name, err))
		}
	}
	return errors.Join(errs...)
}

// changeModel changes a model's document, or makes one when there is none and change
// sets a current version. change may be called several times.
func (c *Catalog) changeModel(ctx context.Context, model string, change func(*modelDocument) error) error {
	for range maxAttempts {
		before, revision, err := c.getModel(ctx, model)
		if err != nil {
			return err
		}
		after := modelDocument{Current: before.Current, Pending: before.Pending, Deleting: maps.Clone(before.Deleting), Keep: before.Keep}
		if err := change(&after); err != nil {
			return err
		}
		if after.equal(*before) {
			return nil
		}
		value, err := json.Marshal(after)
		if err != nil {
			return c.failed(err)
		}
		_, err = c.docs.Put(ctx, modelKey(model), value, revision)
		if !errors.Is(err, store.ErrConflict) {
			return c.failed(err)
		}
	}
	return conflict(model)
}

// getModel returns a model's document, empty and with revision 0 when there is none.
func (c *Catalog) getModel(ctx context.Context, model string) (*modelDocument, store.Revision, error) {
	d, err := c.docs.Get(ctx, modelKey(model))
	if errors.Is(err, store.ErrNotFound) {
		return &modelDocument{}, 0, nil
	}
	if err != nil {
		return nil, 0, c.failed(err)
	}
	m, err := decodeModel(d.Value)
	return m, d.Revision, c.failed(err)
}

// getVersion returns a version's document unless the version is being removed. The model
// must have been read before, so that a version that is found is not one that had been
// marked before.
func (c *Catalog) getVersion(ctx context.Context, m *modelDocument, model, version string) (*versionDocument, store.Revision, error) {
	d, err := c.docs.Get(ctx, versionKey(model, version))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, m.notFound(model, version)
	}
	if err != nil {
		return nil, 0, c.failed(err)
	}
	doc, err := decodeVersion(d.Value)
	if err != nil {
		return nil, 0, c.failed(err)
	}
	if m.Deleting[version] == doc.UID {
		return nil, 0, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "version",
			"version %q of model %q is being removed", version, model)
	}
	return doc, d.Revision, nil
}

// listVersions returns the documents of a model's versions; none when there is no such
// model.
func (c *Catalog) listVersions(ctx context.Context, model string) (map[string]*versionDocument, error) {
	docs, err := c.docs.List(ctx, versionKey(model, ""))
	if err != nil {
		return nil, c.failed(err)
	}
	versions := map[string]*versionDocument{}
	for _, d := range docs {
		doc, err := decodeVersion(d.Value)
		if err != nil {
			return nil, c.failed(err)
		}
		versions[strings.TrimPrefix(d.Key, versionKey(model, ""))] = doc
	}
	return versions, nil
}

// failed turns an error of the store into one for callers. It returns nil for nil.
func (c *Catalog) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return apierror.From(err)
	case errors.Is(err, store.ErrUnavailable):
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now: try again")
	}
	c.log.Error("catalog of models", "error", err)
	return apierror.From(err)
}

// ModelNotFound says that there is no such model.
func ModelNotFound(model string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model", "there is no model %q", model)
}

// VersionNotFound says that a model has no such version.
func VersionNotFound(model, version string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "version", "model %q has no version %q", model, version)
}

func conflict(model string) error {
	return apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "",
		"model %q was changed by others again and again while it was to be changed: try again", model)
}

// View is the catalog at one moment. It never changes.
type View struct {
	// Models are sorted by name.
	Models []*Model

	snapshot *store.Snapshot[document]
}

// Model is a model at one moment.
type Model struct {
	// Name is the model's name.
	Name string
	// Versions are all that have a document, oldest first.
	Versions []*Version

	document modelDocument
	revision store.Revision // zero when there is no document yet
}

// Version is a version at one moment.
type Version struct {
	// UID tells it from a version of the same name that was removed.
	UID string
	// Spec is the version as recorded.
	Spec *clipperv1.ModelVersion
	// Deleting is true when it is being removed.
	Deleting bool

	revision store.Revision
}

// Etag identifies the state of how the version runs.
func (v *Version) Etag() string { return etagOf(v.revision) }

func etagOf(r store.Revision) string { return strconv.FormatUint(uint64(r), 36) }

// View returns the catalog as it was last read.
func (c *Catalog) View() *View {
	snapshot := c.follower.Snapshot()
	if v := c.view.Load(); v != nil && v.snapshot == snapshot {
		return v
	}
	v := newView(snapshot)
	c.view.Store(v)
	return v
}

// Refresh reads the store, so that the next View has every change that was made before.
func (c *Catalog) Refresh(ctx context.Context) error { return c.failed(c.follower.Refresh(ctx)) }

// Synced says whether the store has been read at all.
func (v *View) Synced() bool { return v.snapshot.Synced() }

// Replaced returns a channel that is closed when there is a newer view.
func (v *View) Replaced() <-chan struct{} { return v.snapshot.Replaced() }

// Model returns the model of that name, or nil.
func (v *View) Model(name string) *Model {
	i, found := slices.BinarySearchFunc(v.Models, name, func(m *Model, name string) int { return strings.Compare(m.Name, name) })
	if !found {
		return nil
	}
	return v.Models[i]
}

// Version returns the version of that name, or nil.
func (m *Model) Version(name string) *Version {
	for _, v := range m.Versions {
		if v.Spec.Version == name {
			return v
		}
	}
	return nil
}

// Current is the version that answers queries which name none.
func (m *Model) Current() string { return m.settled().Current }

// Keep is how many versions are kept that were deployed before the current one; nil for all.
func (m *Model) Keep() *uint32 { return m.document.Keep }

// Surplus reports whether there are versions that [Catalog.Prune] would remove.
func (m *Model) Surplus() bool {
	versions := make(map[string]*versionDocument, len(m.Versions))
	for _, v := range m.Versions {
		versions[v.Spec.Version] = &versionDocument{UID: v.UID, spec: v.Spec}
	}
	document := m.settled()
	return len(document.surplus(versions)) > 0
}

// Pending is the version that becomes current when it has a replica that is ready, or empty.
func (m *Model) Pending() string { return m.settled().Pending }

func newView(snapshot *store.Snapshot[document]) *View {
	v := &View{snapshot: snapshot}
	models := map[string]*Model{}
	model := func(name string) *Model {
		if models[name] == nil {
			models[name] = &Model{Name: name}
			v.Models = append(v.Models, models[name])
		}
		return models[name]
	}
	for e := range snapshot.All() {
		name, _, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix), versionsIn)
		m := model(name)
		if e.Value.model != nil {
			m.document, m.revision = *e.Value.model, e.Revision
			continue
		}
		m.Versions = append(m.Versions, &Version{UID: e.Value.version.UID, Spec: e.Value.version.spec, revision: e.Revision})
	}
	slices.SortFunc(v.Models, func(a, b *Model) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range v.Models {
		for _, version := range m.Versions {
			version.Deleting = m.document.Deleting[version.Spec.Version] == version.UID
		}
		slices.SortStableFunc(m.Versions, func(a, b *Version) int {
			return a.Spec.CreateTime.AsTime().Compare(b.Spec.CreateTime.AsTime())
		})
	}
	return v
}

// settled returns what the model's document should be, given its versions.
func (m *Model) settled() modelDocument {
	want := modelDocument{Current: m.document.Current, Pending: m.document.Pending, Keep: m.document.Keep}
	newest := ""
	live := map[string]bool{}
	for _, v := range m.Versions {
		if v.Deleting {
			if want.Deleting == nil {
				want.Deleting = map[string]string{}
			}
			want.Deleting[v.Spec.Version] = v.UID
			continue
		}
		live[v.Spec.Version] = true
		newest = v.Spec.Version
	}
	if !live[want.Pending] {
		want.Pending = ""
	}
	if !live[want.Current] && len(live) > 0 {
		want.Current = newest
		if want.Pending != "" {
			want.Current, want.Pending = want.Pending, ""
		}
	}
	return want
}
