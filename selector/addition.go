// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
)

// additionMemory is how long the store remembers what was gathered in memory and added to it.
const additionMemory = time.Hour

// addition is sums that were gathered in memory and are to be added to a key of the store. It counts once,
// however often it has to be tried.
type addition struct {
	once   string
	update store.Update
	first  time.Time // when it was first tried
}

func newAddition(key string, deltas map[string]float64) *addition {
	return &addition{once: "sums/" + rand.Text(), update: store.Update{Key: key, Deltas: deltas}}
}

// errForgotten says that an addition was given up: the store may have it, and have forgotten that.
var errForgotten = errors.New("sums were left out, since the store did not answer for as long as it remembers what it got")

// add makes the addition. After [store.ErrUnavailable] it is to be tried again; any other outcome is final.
func (a *addition) add(ctx context.Context, sums store.Sums) error {
	switch {
	case a.first.IsZero():
		a.first = time.Now()
	case time.Since(a.first) >= additionMemory:
		return errForgotten
	}
	_, err := sums.Add(ctx, a.once, additionMemory, a.update)
	return err
}
