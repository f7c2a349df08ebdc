// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/top"
)

// nextEvent reads an event of a stream: its name, its id and its data.
func nextEvent(t *testing.T, lines *bufio.Scanner) (name, id, data string) {
	t.Helper()
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if data != "" {
				return name, id, data
			}
		}
	}
	return "", "", ""
}

func TestWatch(t *testing.T) {
	f := start(t, newSelector(digits()))
	fail := make(chan struct{})
	f.admin.handle = func(_ context.Context, request any) (any, error) {
		select {
		case <-fail:
			return nil, status.Error(codes.Unavailable, "cannot be reached now")
		default:
		}
		switch request.(type) {
		case *clipperv1.ListModelsRequest:
			return &clipperv1.ListModelsResponse{Models: []*clipperv1.Model{{Name: "m", CurrentVersion: "1", Versions: []*clipperv1.ModelVersion{{Model: "m", Version: "1"}}}}}, nil
		case *clipperv1.ListApplicationsRequest:
			return &clipperv1.ListApplicationsResponse{Applications: []*clipperv1.Application{digits()}}, nil
		}
		return nil, status.Error(codes.NotFound, "not here")
	}
	draining := make(chan struct{})
	h, err := frontend.NewWatchHandler(testConfig(), f.conn, f.registry, draining)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	open := func(query string) *http.Response {
		res, err := http.Get(server.URL + frontend.WatchPath + query)
		require.NoError(t, err)
		return res
	}

	res := open("?interval=100ms")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	var seen top.Snapshot
	for i := range 3 {
		name, id, data := nextEvent(t, lines)
		require.Equal(t, "snapshot", name)
		require.NotEmpty(t, id)
		require.NoError(t, json.Unmarshal([]byte(data), &seen))
		require.Equal(t, "m", seen.Models[0].Model)
		require.Equal(t, "digits", seen.Applications[0].Application)
		require.Equal(t, i > 0, seen.Seconds > 0, "rates need two readings")
	}
	other := open("")
	close(fail) // A view that cannot go on says why and ends; the client comes back by itself.
	for {
		name, _, data := nextEvent(t, lines)
		require.NotEmpty(t, data)
		if name == "error" {
			require.Contains(t, data, "cannot be reached now")
			break
		}
	}
	require.False(t, lines.Scan() && lines.Text() != "")
	require.NoError(t, res.Body.Close())

	res = open("")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.NoError(t, res.Body.Close())
	for query, want := range map[string]int{"?interval=1ms": 400, "?interval=x": 400, "?interval=2h": 400} {
		res := open(query)
		require.Equal(t, want, res.StatusCode, query)
		require.NoError(t, res.Body.Close())
	}
	w := call(h, "POST", frontend.WatchPath, "")
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)

	close(draining)
	for more := bufio.NewScanner(other.Body); more.Scan(); { // Ends, since the server stops.
		continue
	}
	require.NoError(t, other.Body.Close())
}

// The number of views is limited.
func TestWatch_many(t *testing.T) {
	f := start(t, newSelector(digits()))
	f.admin.handle = func(_ context.Context, request any) (any, error) {
		if _, ok := request.(*clipperv1.ListModelsRequest); ok {
			return &clipperv1.ListModelsResponse{}, nil
		}
		return &clipperv1.ListApplicationsResponse{}, nil
	}
	draining := make(chan struct{})
	h, err := frontend.NewWatchHandler(testConfig(), f.conn, f.registry, draining)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for range 64 {
		res, err := http.Get(server.URL + frontend.WatchPath)
		require.NoError(t, err)
		defer func() { require.NoError(t, res.Body.Close()) }()
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
	res, err := http.Get(server.URL + frontend.WatchPath)
	require.NoError(t, err)
	require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	require.NoError(t, res.Body.Close())
	close(draining)
}
