// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestOutage_refused stops Redis: queries are answered by the models all the time, feedback is refused with
// a reason, and when Redis is back everything works again without a restart.
func TestOutage_refused(t *testing.T) {
	s := start(t, three, redis)
	s.deploy(t, "m", nil)
	s.create(t, application("a", "exp4", "m"))
	require.False(t, s.learn(t, "a", s.askSelector(t, "a", 1, 0), 1).Duplicate)
	s.redis.Kill()
	var ids []string
	for range 20 {
		r := s.askSelector(t, "a", 1, 0)
		require.EqualValues(t, 1, predicted(t, r))
		ids = append(ids, r.FeedbackId)
		_, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: "a", FeedbackId: r.FeedbackId, Observation: truth(1)})
		requireStatus(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE)
	}
	code, object := rest{method: "POST", url: s.queryURL + "/v1/applications/a/feedback", body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, ids[0])}.call(t)
	require.Equal(t, 503, code, object)
	s.redis.Restart()
	for _, id := range ids {
		require.EventuallyWithT(t, func(c *assertCollect) {
			_, err := s.feedback.Feedback(context.Background(), &clipperv1.FeedbackRequest{Application: "a", FeedbackId: id, Observation: truth(1)})
			require.NoError(c, err)
		}, patience, poll)
	}
	s.awaitObservations(t, "a", "", 21)
}

// TestOutage_buffered pauses Redis, and kills the selector after it has buffered feedback: the next one hands
// it over, and repetitions count once.
func TestOutage_buffered(t *testing.T) {
	s := install(t, three, redis)
	buffer := filepath.Join(t.TempDir(), "buffer")
	s.settings[selector] = append(s.settings[selector], "--feedback-buffer="+buffer, "--feedback-wait=200ms")
	for _, name := range s.services {
		s.start(t, name)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	s.deploy(t, "m", nil)
	s.create(t, application("a", "exp4", "m"))
	require.False(t, s.learn(t, "a", s.askSelector(t, "a", 1, 0), 1).Buffered)
	s.redis.Pause()
	var ids []string
	for range 20 {
		r := s.askSelector(t, "a", 1, 0)
		require.EqualValues(t, 1, predicted(t, r))
		require.True(t, s.learn(t, "a", r, 1).Buffered)
		ids = append(ids, r.FeedbackId)
	}
	code, object := rest{method: "POST", url: s.queryURL + "/v1/applications/a/feedback", body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, ids[0])}.call(t)
	require.Equal(t, 200, code, object)
	require.Equal(t, true, object["buffered"], object)
	require.EqualValues(t, 21, s.sum(t, selector, "clipper_selector_feedback_buffered_total"))
	require.EqualValues(t, 21, s.sum(t, selector, "clipper_selector_feedback_buffer_entries"))
	require.EqualValues(t, 1, s.sum(t, selector, "clipper_selector_store_outage"))
	s.kill(t, selector)
	s.redis.Resume()
	s.start(t, selector)
	s.awaitReady(t, selector)
	s.awaitObservations(t, "a", "", 21)
	require.EventuallyWithT(t, func(c *assertCollect) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, id := range ids {
			r, err := s.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{Application: "a", FeedbackId: id, Observation: truth(1)})
			require.NoError(c, err)
			require.True(c, r.Duplicate)
		}
	}, patience, poll)
	s.awaitObservations(t, "a", "", 21)
	require.Zero(t, s.sum(t, selector, "clipper_selector_feedback_buffer_entries"))
	require.EqualValues(t, 21, s.sum(t, selector, "clipper_selector_feedback_replayed_total"))
	require.Zero(t, s.sum(t, selector, "clipper_selector_feedback_dropped_total"))
}
