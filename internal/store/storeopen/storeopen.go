// SPDX-License-Identifier: Apache-2.0

// Package storeopen opens the store that an address names. It is the one place
// that knows all backends.
package storeopen

import (
	"context"
	"fmt"
	"strings"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
	"github.com/clipper-serving/clipper/internal/store/storeredis"
)

// Open opens the store at address, which is one of
//
//	file:/path/to/file.db
//	redis://[user:password@]host:port[/db][?namespace=name]
//	rediss://... (the same over TLS)
//	unix:///path/to/redis.sock[?db=n&namespace=name]
//
// A file that another process has open is an error that matches
// [store.ErrUnavailable], after a wait of at most three seconds. A Redis need not be
// up yet. The caller closes the store. Any other address is [store.ErrInvalid].
func Open(ctx context.Context, address string) (store.Store, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	switch scheme {
	case "file":
		// The form with an authority, file:///path, is a path that begins with three
		// slashes, which the operating system reads as one.
		if rest == "" {
			return nil, fmt.Errorf("open store: %w: file: without a path", store.ErrInvalid)
		}
		return opened(storebolt.Open(ctx, rest))
	case "redis", "rediss", "unix":
		return opened(storeredis.Open(address))
	default:
		// The address is not shown, since it may hold a password.
		return nil, fmt.Errorf("open store: %w: unknown scheme of the address, want file, redis, rediss or unix", store.ErrInvalid)
	}
}

// opened keeps a nil pointer from becoming an interface that is not nil.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
