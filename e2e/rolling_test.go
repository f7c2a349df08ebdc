// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestRolling goes from one version to the next and back, twenty times, under load: no query is lost.
// The next version is deployed each time, as a process of its own; going back starts nothing.
func TestRolling(t *testing.T) {
	const model, app, rounds = "rolling", "rolling", 20
	s := start(t, one, embedded)
	deploy := func(round int) string {
		name := strconv.Itoa(round)
		v := version(model, name, environment{"BIAS": strconv.Itoa(1000 * round)})
		v.Cache = &clipperv1.Cache{Disabled: true}
		_, err := s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: v, KeepVersions: new(uint32(1))})
		require.NoError(t, err)
		return name
	}
	deploy(0)
	s.awaitState(t, model, "0", clipperv1.ModelState_MODEL_STATE_READY)
	s.create(t, application(app, "", model))

	ctx, stop := context.WithCancel(t.Context())
	var answered [rounds + 1]atomic.Int64 // by version
	var load sync.WaitGroup
	failures := make(chan string, 1)
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				r, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: input(1, 1)})
				if ctx.Err() != nil {
					return
				}
				if err != nil || r.IsDefault {
					select {
					case failures <- fmt.Sprintf("%v: %v", err, r):
					default:
					}
					return
				}
				answered[label(t, r.Outputs)/1000].Add(1)
			}
		})
	}
	answers := func(round int) { // The version is what answers now.
		from := answered[round].Load()
		require.Eventually(t, func() bool { return answered[round].Load() >= from+20 || len(failures) > 0 }, patience, poll)
		require.Empty(t, failures)
	}
	// Over gRPC and over REST by turns.
	setVersion := func(round int) {
		if round%2 == 0 {
			_, err := s.models.SetCurrentVersion(t.Context(), &clipperv1.SetCurrentVersionRequest{Model: model, Version: strconv.Itoa(round)})
			require.NoError(t, err)
			return
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.adminURL+"/v1/models/"+model+"/current-version",
			strings.NewReader(fmt.Sprintf(`{"version": "%d"}`, round)))
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	answers(0)
	for round := 1; round <= rounds; round++ {
		next := deploy(round)
		s.awaitState(t, model, next, clipperv1.ModelState_MODEL_STATE_READY)
		answers(round)
		// The version before is still warm; the ones before that are gone.
		require.EventuallyWithT(t, func(c *assertCollect) { require.Len(c, s.containers(c), 2) }, patience, poll)
		before := s.containers(t)
		setVersion(round - 1)
		require.Equal(t, int64(1000*(round-1)+1), label(t, s.ask(t, app, 1, 1).Outputs), "when the call has returned, the version before answers")
		answers(round - 1)
		setVersion(round)
		answers(round)
		require.ElementsMatch(t, before, s.containers(t), "nothing was started or stopped")
	}
	stop()
	load.Wait()
	require.Empty(t, failures)
}
