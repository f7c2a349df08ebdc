// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// maxPending bounds the calls that wait for a reply or for the link; more are refused.
const maxPending = 1 << 17

// The wait between two attempts to open a stream doubles from minBackoff to maxBackoff.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
)

// Client sends calls to one server. Safe for concurrent use.
type Client struct {
	name string
	rpc  internalv1.ExchangeServiceClient
	log  *slog.Logger
	out  *outbox[*call]

	mu      sync.Mutex
	closed  bool
	nextID  uint64
	pending map[uint64]*call
	current *link // The stream that new calls go to; nil while there is none.
}

// call is a call that has no reply yet.
type call struct {
	method     internalv1.Method
	id         uint64
	deadline   time.Time // Zero: none.
	payload    []byte
	repeatable bool
	impatient  bool  // Fails when there is no stream.
	link       *link // The stream that it was written to; guarded by Client.mu.
	done       chan reply
}

type reply struct {
	payload []byte
	err     error
}

// link is one stream. Its context ends when the stream is of no use any more.
type link struct {
	stream grpc.BidiStreamingClient[internalv1.ExchangeRequest, internalv1.ExchangeResponse]
	// drained is closed when the server asks for no more calls.
	drained chan struct{}
	// dead is set when the reader has ended; guarded by Client.mu.
	dead bool
}

// NewClient returns a client of the service called name, for messages to people, on a connection.
// Calls wait until Run has a stream.
func NewClient(name string, conn grpc.ClientConnInterface, log *slog.Logger) *Client {
	return &Client{
		name:    name,
		rpc:     internalv1.NewExchangeServiceClient(conn),
		log:     log,
		out:     newOutbox(func(c *call) int { return len(c.payload) + 32 }),
		pending: make(map[uint64]*call),
	}
}

// Call sends an argument and returns the encoded result. It waits for the server, at most until
// ctx is done. When the stream breaks, a repeatable call is sent again on the next one; any other
// fails with UNAVAILABLE, and may or may not have been carried out. Errors are status errors.
func (c *Client) Call(ctx context.Context, method internalv1.Method, argument proto.Message, repeatable bool) ([]byte, error) {
	return c.call(ctx, &call{method: method, repeatable: repeatable}, argument)
}

// Try is Call for those who can ask somebody else: it fails with UNAVAILABLE at once when there is no
// stream, and when the stream breaks.
func (c *Client) Try(ctx context.Context, method internalv1.Method, argument proto.Message) ([]byte, error) {
	return c.call(ctx, &call{method: method, impatient: true}, argument)
}

func (c *Client) call(ctx context.Context, w *call, argument proto.Message) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, apierror.From(err)
	}
	var err error
	if w.payload, err = proto.Marshal(argument); err != nil {
		return nil, apierror.From(err)
	}
	w.done = make(chan reply, 1)
	w.deadline, _ = ctx.Deadline()

	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, c.unavailable("this side is shutting down")
	case w.impatient && c.current == nil:
		c.mu.Unlock()
		return nil, c.unavailable("there is no connection")
	case len(c.pending) >= maxPending:
		c.mu.Unlock()
		return nil, apierror.Overloaded(time.Second, "too many calls wait for the %s", c.name)
	}
	c.nextID++
	w.id = c.nextID
	c.pending[w.id] = w
	c.mu.Unlock()
	c.out.put(w)

	if r, ok := deadline.Wait(ctx, w.done); ok {
		return r.payload, r.err
	}
	return c.abandon(ctx, w)
}

// Connected reports whether there is a stream now.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil
}

// abandon forgets a call whose caller has left, and tells the server unless it knows by the
// deadline.
func (c *Client) abandon(ctx context.Context, w *call) ([]byte, error) {
	c.mu.Lock()
	_, waiting := c.pending[w.id]
	delete(c.pending, w.id)
	sent, connected := w.link != nil, c.current != nil
	c.mu.Unlock()
	if !waiting { // The reply came in the same moment.
		r := <-w.done
		return r.payload, r.err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		if sent {
			c.out.put(&call{method: internalv1.Method_METHOD_CANCEL, id: w.id})
		}
		return nil, apierror.From(ctx.Err())
	}
	if !connected {
		return nil, c.unavailable("it cannot be reached")
	}
	return nil, apierror.From(ctx.Err())
}

func (c *Client) unavailable(why string) error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the %s did not answer: %s", c.name, why)
}

// Run keeps a stream open until ctx is done, then fails what is pending. It must be called once.
func (c *Client) Run(ctx context.Context) error {
	defer c.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	backoff := minBackoff
	for ctx.Err() == nil {
		l, cancel, err := c.open(ctx)
		if err != nil {
			c.log.Debug("waiting for service", "service", c.name, "error", err)
			select {
			case <-time.After(backoff/2 + rand.N(backoff)):
			case <-ctx.Done():
			}
			backoff = min(2*backoff, maxBackoff)
			continue
		}
		backoff = minBackoff
		c.log.Info("connected", "service", c.name)
		c.adopt(l)
		read := make(chan struct{})
		wg.Go(func() {
			defer cancel()
			defer close(read)
			c.read(l)
		})
		c.write(ctx, l, read)
		c.retire(l)
		c.log.Info("disconnected", "service", c.name)
	}
	return nil
}

// open opens a stream; cancel ends it.
func (c *Client) open(ctx context.Context) (*link, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.rpc.Exchange(ctx, grpc.WaitForReady(true))
	if err == nil {
		// The server sends its header at once; without it a draining server looks open.
		_, err = stream.Header()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return &link{stream: stream, drained: make(chan struct{})}, cancel, nil
}

// adopt makes l the link that new calls go to.
func (c *Client) adopt(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = l
}

// retire ends the use of l for new calls.
func (c *Client) retire(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == l {
		c.current = nil
	}
	for id, w := range c.pending {
		if w.impatient && w.link == nil { // It would have to wait for the next stream.
			delete(c.pending, id)
			w.done <- reply{err: c.unavailable("the connection broke")}
		}
	}
}

// write sends what is waiting until the link ends or drains.
func (c *Client) write(ctx context.Context, l *link, read <-chan struct{}) {
	var batch []*call
	for {
		for {
			if batch = c.out.take(batch); len(batch) == 0 {
				break
			}
			m := c.claim(l, batch)
			if m == nil {
				return
			}
			// The reader learns why a message could not be sent, and sees to its calls.
			if len(m.Calls) > 0 && l.stream.Send(m) != nil {
				<-read
				return
			}
		}
		select {
		case <-c.out.wake:
		case <-l.drained:
			_ = l.stream.CloseSend()
			return
		case <-read:
			return
		case <-ctx.Done():
			return
		}
	}
}

// claim marks the calls that are still wanted as written to l and returns their message. When l
// has ended, it puts them back and returns nil.
func (c *Client) claim(l *link, batch []*call) *internalv1.ExchangeRequest {
	m := &internalv1.ExchangeRequest{Calls: make([]*internalv1.Call, 0, len(batch))}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.dead {
		for _, w := range batch {
			c.out.put(w)
		}
		return nil
	}
	for _, w := range batch {
		if w.method != internalv1.Method_METHOD_CANCEL {
			if c.pending[w.id] != w {
				continue
			}
			w.link = l
		}
		wire := &internalv1.Call{Id: w.id, Method: w.method, Payload: w.payload}
		if !w.deadline.IsZero() {
			wire.TimeoutMicros = uint64(max(1, w.deadline.Sub(now).Microseconds()))
		}
		m.Calls = append(m.Calls, wire)
	}
	return m
}

// read hands out replies until the stream ends, then repeats or fails the calls that it leaves.
func (c *Client) read(l *link) {
	draining := false
	for {
		m, err := l.stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.log.Debug("stream broke", "service", c.name, "error", err)
			}
			c.orphan(l)
			return
		}
		for _, r := range m.Replies {
			c.deliver(r)
		}
		if m.Draining && !draining {
			draining = true
			c.retire(l)
			close(l.drained)
		}
	}
}

// deliver gives a reply to the call that waits for it, if it still does.
func (c *Client) deliver(r *internalv1.Reply) {
	c.mu.Lock()
	w := c.pending[r.Id]
	delete(c.pending, r.Id)
	c.mu.Unlock()
	if w == nil {
		return
	}
	if len(r.Status) > 0 {
		w.done <- reply{err: decodeStatus(r.Status)}
		return
	}
	w.done <- reply{payload: r.Payload}
}

// orphan sees to the calls that were written to a link that has ended.
func (c *Client) orphan(l *link) {
	var again []*call
	c.mu.Lock()
	l.dead = true
	for id, w := range c.pending {
		if w.link != l {
			continue
		}
		if w.repeatable {
			w.link = nil
			again = append(again, w)
			continue
		}
		delete(c.pending, id)
		w.done <- reply{err: c.unavailable("the connection broke")}
	}
	c.mu.Unlock()
	for _, w := range again {
		c.out.put(w)
	}
}

// close fails every call that is pending.
func (c *Client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for id, w := range c.pending {
		delete(c.pending, id)
		w.done <- reply{err: c.unavailable("this side is shutting down")}
	}
}
