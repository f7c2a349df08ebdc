// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// A log that is followed reaches a REST client line by line, and ends with the client.
func TestLogsOverREST(t *testing.T) {
	f := start(t, newSelector(digits()))
	requests, ended := make(chan *clipperv1.ReadLogsRequest, 1), make(chan struct{})
	f.admin.handle = func(ctx context.Context, req any) (any, error) {
		requests <- req.(*clipperv1.ReadLogsRequest)
		context.AfterFunc(ctx, func() { close(ended) })
		return []*clipperv1.ReadLogsResponse{{Replica: "0", Time: &timestamppb.Timestamp{Seconds: 1}, Text: "serving"}}, nil
	}
	server := httptest.NewServer(f.adminAPI)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/models/m/versions/1/logs?follow=true&replica=0&tail=5&since=2026-03-01T12:00:00Z", http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.Equal(t, "application/x-ndjson", res.Header.Get("Content-Type"))
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	require.NoError(t, err)
	require.JSONEq(t, `{"result":{"replica":"0","instance":"","time":"1970-01-01T00:00:01Z","text":"serving"}}`, line)
	got := <-requests
	require.Equal(t, "m 1 0", got.Model+" "+got.Version+" "+got.Replica)
	require.True(t, got.Follow)
	require.EqualValues(t, 5, got.GetTail())
	require.EqualValues(t, 1772366400, got.GetSince().GetSeconds())
	require.NoError(t, res.Body.Close())
	<-ended
}
