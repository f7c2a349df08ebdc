// SPDX-License-Identifier: Apache-2.0

// Package instances is how the abstraction instances that share a store find each other, and how
// others find them. Each holds a lease, instances/abstraction/<address>, in which it says where it
// is and which versions it serves; everybody follows the leases.
//
// An instance is its address: one that was killed and is started again there is the same one, so
// nothing moves twice.
package instances

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
)

const prefix = "instances/abstraction/"

// Instance is what a live instance says of itself.
type Instance struct {
	// Address is where its internal gRPC listener is reached.
	Address string `json:"-"`
	// Leaving is true while it hands over what it serves, in order to stop.
	Leaving bool `json:"leaving,omitempty"`
	// Versions says how far each version is that runs there, by its UID.
	Versions map[string]Level `json:"versions,omitempty"`
	// Run tells the process from another one at the same address.
	Run string `json:"run"`
}

// Level is how far a version is at an instance.
type Level int

// The levels, each of which includes those before.
const (
	// Absent means that the version does not run there.
	Absent Level = iota
	// Running means that it runs there, perhaps to start or to end.
	Running
	// Serving means that it has a replica that is ready.
	Serving
	// Complete means that every replica that it shall have there is ready.
	Complete
)

func (i Instance) equal(o Instance) bool {
	return i.Address == o.Address && i.Run == o.Run && i.Leaving == o.Leaving && maps.Equal(i.Versions, o.Versions)
}

func (i Instance) encode() []byte {
	b, err := json.Marshal(i)
	if err != nil { // Strings, numbers and a flag always can be encoded.
		panic(err)
	}
	return b
}

func decode(d store.Document) (Instance, error) {
	i := Instance{}
	if err := json.Unmarshal(d.Value, &i); err != nil {
		return i, fmt.Errorf("decode instance: %w", err)
	}
	i.Address = strings.TrimPrefix(d.Key, prefix)
	return i, nil
}

func follow(docs store.Documents, log *slog.Logger) *store.Follower[Instance] {
	return store.Follow(docs, prefix, decode, store.FollowConfig{Log: log})
}

// Watch tells update the addresses of the live instances, sorted, at once and whenever they change,
// until ctx ends. Update is called by one goroutine at a time, and never with none: whoever had
// reached an instance may reach it still.
func Watch(ctx context.Context, docs store.Documents, log *slog.Logger, update func(addresses []string)) error {
	f := follow(docs, log)
	defer f.Close()
	for {
		s := f.Snapshot()
		var addresses []string
		for e := range s.All() {
			addresses = append(addresses, e.Value.Address)
		}
		if len(addresses) > 0 {
			update(addresses)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Replaced():
		}
	}
}

// MinLease is the shortest lease that an instance may have: one shorter might end while the store is
// only slow.
const MinLease = time.Second
