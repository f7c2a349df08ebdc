// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/cli"
)

func TestHealth(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"ready": false, "checks": {"store": "connection refused"}}`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	address := server.Listener.Addr().String()

	code, stdout, stderr := run(t, "", "", "health", address)
	require.Zero(t, code, stderr)
	require.Equal(t, "ok\n", stdout)

	code, stdout, stderr = run(t, "", "", "health", "--ready", address)
	require.Equal(t, cli.ExitFailed, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "503 Service Unavailable")
	require.Contains(t, stderr, "connection refused")

	server.Close()
	code, _, stderr = run(t, "", "", "health", address)
	require.Equal(t, cli.ExitUnreachable, code)
	require.Contains(t, stderr, "no service answers at "+address)

	code, _, stderr = run(t, "", "", "health", "a b")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, stderr, "want HOST:PORT")
}

func TestVersion_sbom(t *testing.T) {
	code, stdout, stderr := run(t, "", "", "version", "--sbom")
	require.Zero(t, code, stderr)
	var bill struct {
		BOMFormat string `json:"bomFormat"`
		Metadata  struct{ Component struct{ Version string } }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &bill))
	require.Equal(t, "CycloneDX", bill.BOMFormat)
	require.Equal(t, build.Version, bill.Metadata.Component.Version)

	code, _, _ = run(t, "", "", "version", "--sbom", "--json")
	require.Equal(t, cli.ExitUsage, code)
}
