// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A server that is killed in the middle of a write leaves half of a transaction at the end of its
// append-only file. When it starts again it cuts off the command that is not whole, but (Redis 7.0 at
// least) not the MULTI and the whole commands before it, and goes on writing behind them: at the start
// after that, these commands are carried out with the next transaction. An addition would then be done
// by half. To rewrite the file after each start leaves the remains out.

const (
	// rewriteWait is how long a connection waits for that. A large file takes longer, and is then not
	// waited for.
	rewriteWait = 500 * time.Millisecond
	rewritePoll = 5 * time.Millisecond
)

var errLoading = errors.New("the server is loading its data")

// restarts sees to servers that have been started again.
type restarts struct {
	key  string                 // of the server's run that was seen to last, by any client
	seen atomic.Pointer[string] // the run that was seen to by this client
}

// connected is called with each new connection. It fails only while the server cannot be asked
// anything. What the server does not allow is left out.
func (r *restarts) connected(ctx context.Context, c *redis.Conn) error {
	run := field(c.Info(ctx, "server").Val(), "run_id")
	if seen := r.seen.Load(); run == "" || seen != nil && *seen == run {
		return nil
	}
	file := c.Info(ctx, "persistence").Val()
	if field(file, "loading") == "1" {
		return errLoading
	}
	if field(file, "aof_enabled") == "1" && c.Get(ctx, r.key).Val() != run {
		if c.BgRewriteAOF(ctx).Err() == nil && rewritten(ctx, c) {
			_ = c.Set(ctx, r.key, run, 0).Err() // Without it, another client rewrites the file once more.
		}
	}
	r.seen.Store(&run)
	return nil
}

// rewritten waits until the file is.
func rewritten(ctx context.Context, c *redis.Conn) bool {
	for end := time.Now().Add(rewriteWait); time.Now().Before(end); {
		file := c.Info(ctx, "persistence").Val()
		if field(file, "aof_rewrite_in_progress") == "0" && field(file, "aof_rewrite_scheduled") == "0" {
			return field(file, "aof_last_bgrewrite_status") == "ok"
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(rewritePoll):
		}
	}
	return false
}

// field returns a value of what INFO answers: lines of name:value.
func field(info, name string) string {
	_, after, found := strings.Cut("\n"+info, "\n"+name+":")
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(after, "\r\n")
	return value
}
