// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth"
	"github.com/clipper-serving/clipper/internal/top"
)

const (
	// maxWatches is the most views that are open at a time.
	maxWatches = 64
	// The time between two events, and what it may be.
	watchInterval    = time.Second
	minWatchInterval = 100 * time.Millisecond
	maxWatchInterval = time.Minute
	// heartbeat is the longest silence of a view, so that nobody on the way takes it for dead.
	heartbeat = 15 * time.Second
	// watchWrite is the time that a client has to take an event.
	watchWrite = 10 * time.Second
)

// NewWatchHandler returns the live view of models and applications at WatchPath, as server-sent
// events (HTML standard, section 9.2). It asks the administration behind conn as the caller, and
// measures by the metrics of this process and of those that cfg names. Views end when draining is
// closed.
func NewWatchHandler(cfg Config, conn grpc.ClientConnInterface, metrics prometheus.Gatherer, draining <-chan struct{}) (http.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure REST: %w", err)
	}
	return Restrict(&watch{
		cfg: cfg, conn: conn, metrics: metrics, draining: draining, open: make(chan struct{}, maxWatches),
	}, cfg.AdminOrigins)
}

// WatchPath is where the live view is.
const WatchPath = "/v1/watch"

type watch struct {
	cfg      Config
	conn     grpc.ClientConnInterface
	metrics  prometheus.Gatherer
	draining <-chan struct{}
	open     chan struct{} // Holds one item for each view.
}

func (h *watch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["X-Content-Type-Options"] = nosniff
	if r.Method != http.MethodGet {
		header.Set("Allow", "GET, OPTIONS")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeStatus(w, apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "", "%s cannot be used with %s", WatchPath, shorten(r.Method)))
		return
	}
	interval, err := watchIntervalOf(r)
	if err != nil {
		writeStatus(w, err)
		return
	}
	select {
	case h.open <- struct{}{}:
		defer func() { <-h.open }()
	default:
		writeStatus(w, apierror.Overloaded(heartbeat, "%d live views are open, the most that are allowed", maxWatches))
		return
	}
	ctx, cancel := context.WithCancel(auth.WithRemote(auth.Outgoing(r.Context(), r.Header), r.RemoteAddr))
	defer cancel()
	source := &top.Source{
		Models: clipperv1.NewModelServiceClient(h.conn), Applications: clipperv1.NewApplicationServiceClient(h.conn),
		Own: h.metrics, Metrics: h.cfg.WatchMetrics,
	}
	snapshot, err := source.Read(ctx)
	if err != nil {
		writeStatus(w, err)
		return
	}
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	stream := &events{w: w, control: http.NewResponseController(w)}
	next, beat := time.NewTicker(interval), time.NewTicker(heartbeat)
	defer next.Stop()
	defer beat.Stop()
	if stream.send("retry: 2000\n\n") != nil {
		return
	}
	for {
		if err != nil {
			_ = stream.event("error", "", append(appendError([]byte(`{"error":`), apierror.ToProto(err)), '}')) // The client may be gone.
			return
		}
		text, err2 := json.Marshal(snapshot)
		if err2 != nil || stream.event("snapshot", strconv.FormatInt(snapshot.Time.UnixMilli(), 10), text) != nil {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-next.C:
				waiting = false
			case <-beat.C:
				if stream.send(":\n\n") != nil {
					return
				}
			case <-h.draining:
				return
			case <-ctx.Done():
				return
			}
		}
		snapshot, err = source.Read(ctx)
	}
}

// watchIntervalOf returns the time between two events that a request asks for.
func watchIntervalOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("interval")
	if text == "" {
		return watchInterval, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minWatchInterval || d > maxWatchInterval {
		return 0, invalid("interval", "interval is %q: expected a time from %s to %s, as in 2s", shorten(text), minWatchInterval, maxWatchInterval)
	}
	return d, nil
}

// events writes a stream of events.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// event sends an event whose data is one line.
func (e *events) event(name, id string, data []byte) error {
	text := "event: " + name + "\n"
	if id != "" {
		text += "id: " + id + "\n"
	}
	return e.send(text + "data: " + string(data) + "\n\n")
}

// send sends a text now, or fails when the client does not take it in time.
func (e *events) send(text string) error {
	// A connection that has no deadlines is one of a test.
	_ = e.control.SetWriteDeadline(time.Now().Add(watchWrite))
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.control.Flush()
}
