// SPDX-License-Identifier: Apache-2.0

package services

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// TestChartPassesFlagsThatExist holds the Helm chart against the commands that it runs.
func TestChartPassesFlagsThatExist(t *testing.T) {
	var commands struct {
		Frontend    Frontend    `cmd:""`
		Selector    Selector    `cmd:""`
		Abstraction Abstraction `cmd:""`
	}
	parser, err := kong.New(&commands, kong.Vars{"data_dir": "/data"})
	require.NoError(t, err)
	shared, err := os.ReadFile("../../deploy/helm/clipper/templates/_helpers.tpl")
	require.NoError(t, err)
	flag := regexp.MustCompile(`[ "]--([a-z][a-z-]*)=`)
	for _, command := range parser.Model.Children {
		own, err := os.ReadFile("../../deploy/helm/clipper/templates/" + command.Name + ".yaml")
		require.NoError(t, err)
		known := map[string]bool{}
		for _, f := range command.Flags {
			known[f.Name] = true
		}
		passed := flag.FindAllStringSubmatch(strings.Join([]string{string(own), string(shared)}, "\n"), -1)
		require.Greater(t, len(passed), 5)
		for _, listener := range regexp.MustCompile(`"listener" "([a-z-]+)"`).FindAllStringSubmatch(string(own), -1) {
			for _, file := range []string{"cert", "key", "client-ca"} {
				require.True(t, known[listener[1]+"-tls-"+file], "the chart gives TLS to %s of clipper %s", listener[1], command.Name)
			}
		}
		for _, f := range passed {
			require.True(t, known[f[1]], "the chart passes --%s to clipper %s", f[1], command.Name)
		}
	}
}
