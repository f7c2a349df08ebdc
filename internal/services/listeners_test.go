// SPDX-License-Identifier: Apache-2.0

package services

import (
	"net"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/telemetry"
)

// Without configuration, every listener of every command is on loopback, and these are all of them.
func TestListeners_defaults(t *testing.T) {
	parser, err := kong.New(&struct{}{}, append(Options(t.Context(), telemetry.Build{}), kong.Name("clipper"))...)
	require.NoError(t, err)
	found := map[string]string{}
	for _, command := range parser.Model.Children {
		for _, flag := range command.Flags {
			if strings.HasSuffix(flag.Name, "listen") {
				found[command.Name+" --"+flag.Name] = flag.Default
			}
		}
	}
	require.Equal(t, map[string]string{
		"up --frontend-http-listen":       "127.0.0.1:1337",
		"up --frontend-admin-http-listen": "127.0.0.1:1338",
		"up --frontend-grpc-listen":       "127.0.0.1:1347",
		"up --frontend-admin-grpc-listen": "127.0.0.1:1348",
		"frontend --http-listen":          "127.0.0.1:1337",
		"frontend --admin-http-listen":    "127.0.0.1:1338",
		"frontend --grpc-listen":          "127.0.0.1:1347",
		"frontend --admin-grpc-listen":    "127.0.0.1:1348",
		"selector --grpc-listen":          "127.0.0.1:1357",
		"selector --ops-listen":           "127.0.0.1:1358",
		"abstraction --grpc-listen":       "127.0.0.1:1367",
		"abstraction --ops-listen":        "127.0.0.1:1368",
	}, found)
	for name, address := range found {
		host, _, err := net.SplitHostPort(address)
		require.NoError(t, err, name)
		require.True(t, net.ParseIP(host).IsLoopback(), name)
	}
}
