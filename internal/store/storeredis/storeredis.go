// SPDX-License-Identifier: Apache-2.0

// Package storeredis keeps the store in Redis 6.2 or later, by way of
// github.com/redis/go-redis/v9, so that several instances of a service share it.
//
// A write is as durable as Redis is told to make it: with `appendonly yes` and
// `appendfsync always` it survives what the embedded file survives; with
// `appendfsync everysec` the last second can be lost with the machine.
//
// All names of a namespace carry the same hash tag, and so live in the same slot:
// each script is atomic on a cluster node too. The client talks to one node.
package storeredis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/internal/gather"
	"github.com/clipper-serving/clipper/internal/store/internal/watch"
)

const (
	// DefaultNamespace is what the names of all keys begin with, when the address
	// does not say otherwise.
	DefaultNamespace = "clipper"

	// pipelines is how many batches of Add, and of Get, may be under way: one is being
	// answered while the next is being sent.
	pipelines = 2

	// maxBatch bounds a batch, and with it how long its first caller waits.
	maxBatch = 256

	// batchTimeout bounds a batch, whose callers may have no deadline, when the
	// server's machine is gone without a word.
	batchTimeout = 5 * time.Second
)

// DB is a Redis server.
type DB struct {
	redis    *redis.Client
	restarts restarts
	names    names
	adds     *gather.Gatherer[*add]
	gets     *gather.Gatherer[*get]
	hub      watch.Hub

	mu           sync.Mutex
	closed       bool
	subscription *redis.PubSub // nil until somebody watches
	listener     sync.WaitGroup
}

var _ store.Store = (*DB)(nil)

// Open prepares to talk to the server at address:
//
//	redis://user:password@host:port/db?namespace=name
//
// with rediss for TLS, or unix:///path/to/socket?db=0&namespace=name. The further
// parameters are those of redis.ParseURL. With the parameter master_name the host is
// a Sentinel, and addr, which may be repeated, names others; user and password are
// then the Sentinels', and the parameters username and password those of Redis. Open
// does not wait for the server: calls fail with [store.ErrUnavailable] until it can be
// reached. Its errors never show a password.
func Open(address string) (*DB, error) {
	u, err := url.Parse(address)
	if err != nil {
		// The error of url.Parse repeats the address, and with it the password.
		return nil, errors.New("open redis: the address is no valid URL (special characters in a password must be percent-encoded)")
	}
	query := u.Query()
	namespace := DefaultNamespace
	if query.Has("namespace") {
		namespace = query.Get("namespace")
		query.Del("namespace")
		u.RawQuery = query.Encode()
	}
	if namespace == "" || strings.ContainsAny(namespace, "{}") {
		return nil, fmt.Errorf("open redis %s: namespace %q is empty or has a brace", shown(u), namespace)
	}
	// The client would write lines of its own to standard error, for all of the
	// process, about what its callers are told anyway.
	logging.Disable()

	db := &DB{names: newNames(namespace)}
	db.restarts.key = db.names.run
	if db.redis, err = newClient(u, db.restarts.connected); err != nil {
		return nil, fmt.Errorf("open redis %s: %w", shown(u), err)
	}
	db.adds = gather.New(pipelines, maxBatch, db.flush)
	db.gets = gather.New(pipelines, maxBatch, db.read)
	return db, nil
}

// shown is an address without what may be secret.
func shown(u *url.URL) string {
	public := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return public.String()
}

// Documents returns the documents in the namespace.
func (db *DB) Documents() store.Documents { return documents{db} }

// Sums returns the sums in the namespace.
func (db *DB) Sums() store.Sums { return sums{db} }

// Close waits for the batches under way and closes the connections. It may be
// called twice.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	db.adds.Close()
	db.gets.Close()
	var err error
	if db.subscription != nil {
		err = db.subscription.Close()
	}
	db.listener.Wait()
	db.hub.Close()
	return errors.Join(err, db.redis.Close())
}

// listen subscribes to changes, if nobody has yet.
func (db *DB) listen() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed || db.subscription != nil {
		return
	}
	// Without a channel it does not connect yet, which could take long.
	db.subscription = db.redis.Subscribe(context.Background())
	db.listener.Go(func() {
		// An error is no end: the connection is tried again, with this channel.
		_ = db.subscription.Subscribe(context.Background(), db.names.changes)
		for message := range db.subscription.ChannelWithSubscriptions() {
			switch m := message.(type) {
			case *redis.Subscription:
				// Nobody knows what was missed before.
				db.hub.NotifyAll()
			case *redis.Message:
				db.hub.Notify(m.Payload)
			}
		}
	})
}

// names spells the keys in Redis.
type names struct {
	document string // before the key of a document
	index    string // sorted set of the keys of documents
	revision string // counter
	changes  string // channel of the keys of documents that changed
	sums     string // before the key of sums
	sumIndex string // sorted set of the keys of sums
	sumLives string // sorted set of the keys of sums that expire, by a time at which to look at them
	once     string // before a once identity
	run      string // the server's run whose file was rewritten
	write    string // written to find out whether the server takes writes
}

func newNames(namespace string) names {
	tag := "{" + namespace + "}:"
	return names{
		document: tag + "document:",
		index:    tag + "documents",
		revision: tag + "revision",
		changes:  tag + "changes",
		sums:     tag + "sum:",
		sumIndex: tag + "sums",
		sumLives: tag + "lives",
		once:     tag + "once:",
		run:      tag + "run",
		write:    tag + "write",
	}
}

// unavailable wraps whatever the client or the server complain about. Our scripts
// answer with numbers, so an error is never about what the caller asked for.
func unavailable(ctx context.Context, err error) error {
	// A connection runs into the deadline a moment before the context does.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// prefixRange returns the bounds of the keys that begin with prefix, in the
// notation of ZRANGEBYLEX.
func prefixRange(prefix string) (first, last string) {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return "[" + prefix, "+"
	}
	end[len(end)-1]++
	return "[" + prefix, "(" + string(end)
}
