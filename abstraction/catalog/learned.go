// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/internal/store"
)

// learnedKey is beside the models, so that what is learned does not wake those who follow them.
func learnedKey(model, version string) string { return "learned/" + model + versionsIn + version }

// learnedDocument is the JSON of learned/<name>/versions/<version>.
type learnedDocument struct {
	// UID is that of the version it is about.
	UID string `json:"uid"`
	// Latency is how long a replica takes.
	Latency batching.Learned `json:"latency"`
}

// Learned returns what was learned about the replicas of the version with that UID; the zero value
// when nothing was, or when what is stored cannot be used.
func (c *Catalog) Learned(ctx context.Context, model, version, uid string) (batching.Learned, error) {
	d, err := c.docs.Get(ctx, learnedKey(model, version))
	if errors.Is(err, store.ErrNotFound) {
		return batching.Learned{}, nil
	}
	if err != nil {
		return batching.Learned{}, err
	}
	return decodeLearned(d.Value, uid), nil
}

func decodeLearned(value []byte, uid string) batching.Learned {
	var doc learnedDocument
	if err := json.Unmarshal(value, &doc); err != nil || doc.UID != uid || !doc.Latency.Valid() {
		return batching.Learned{} // It is learned again.
	}
	return doc.Latency
}

// SaveLearned keeps what was learned. Of several who save at the same time one is heard.
func (c *Catalog) SaveLearned(ctx context.Context, model, version, uid string, l batching.Learned) error {
	value, err := json.Marshal(learnedDocument{UID: uid, Latency: l})
	if err != nil {
		return err
	}
	key := learnedKey(model, version)
	d, err := c.docs.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err = c.docs.Put(ctx, key, value, d.Revision); errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// forget removes what was learned about a version.
func (c *Catalog) forget(ctx context.Context, model, version string) error {
	key := learnedKey(model, version)
	d, err := c.docs.Get(ctx, key)
	if err == nil {
		err = c.docs.Delete(ctx, key, d.Revision)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
