// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/launcher/docker/dockertest"
	"github.com/clipper-serving/clipper/internal/cli"
)

func imageModel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.joblib")
	require.NoError(t, os.WriteFile(path, []byte("weights"), 0o600))
	return path
}

func TestImageBuild_output(t *testing.T) {
	model, folder := imageModel(t), filepath.Join(t.TempDir(), "digits")
	words := []string{"image", "build", "digits:1", "--framework", "sklearn", "--path", model, "--output", folder}
	t.Setenv("DOCKER_HOST", "unix:///no/such/socket") // It needs no engine.
	code, stdout, stderr := run(t, "", "", words...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, filepath.Join(folder, "Dockerfile")+"\n")
	require.Contains(t, stdout, filepath.Join(folder, "model")+"\n")
	require.Contains(t, stderr, "docker build -t digits:1 "+folder)

	code, _, stderr = run(t, "", "", words...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "nothing is overwritten: name another folder with --output")

	words[len(words)-1] += "-2"
	code, stdout, stderr = run(t, "", "", append(words, "--json")...)
	require.Zero(t, code, stderr)
	var report map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.Equal(t, "digits:1", report["image"])
	require.Regexp(t, "^sha256:", report["context_digest"])
	require.NotContains(t, report, "id")
}

func TestImageBuild_refuses(t *testing.T) {
	model := imageModel(t)
	t.Setenv("DOCKER_HOST", "unix:///no/such/socket")
	for _, test := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"digits", "--framework", "sklearn", "--path", model}, cli.ExitFailed, "the Docker Engine does not answer at unix:///no/such/socket: start it"},
		{[]string{"Digits", "--framework", "sklearn", "--path", model}, cli.ExitUsage, "is no name of an image"},
		{[]string{"digits", "--framework", "cobol", "--path", model}, cli.ExitUsage, "--framework: there is no adapter"},
		{[]string{"digits", "--path", model}, cli.ExitUsage, "--framework"},
		{[]string{"digits", "--framework", "sklearn"}, cli.ExitFailed, "(--path)"},
	} {
		code, stdout, stderr := run(t, "", "", append([]string{"image", "build"}, test.words...)...)
		require.Equal(t, test.code, code, stderr)
		require.Contains(t, stderr, test.want)
		require.Empty(t, stdout)
	}
}

func TestImageBuild(t *testing.T) {
	base := dockertest.Require(t).Base(t)
	words := []string{"image", "build", "clipper-test-cli:1", "--framework", "sklearn", "--path", imageModel(t), "--network", "none", "--base"}
	code, stdout, stderr := run(t, "", "", append(words, base)...)
	require.Zero(t, code, stderr)
	require.Regexp(t, `^clipper-test-cli:1 is built: sha256:[0-9a-f]{64}, [0-9.]+ MiB\n$`, stdout)
	require.Regexp(t, `^sending 0\.. MiB to the engine\n`, stderr)
	require.Contains(t, stderr, "RUN pip install")
	require.Contains(t, stderr, "clipper model deploy MODEL --version V --image clipper-test-cli:1\n")

	code, stdout, stderr = run(t, "", "", append(words, base, "--json")...)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	var report struct {
		Image, ID string
		Size      int64  `json:"size_bytes"`
		Digest    string `json:"context_digest"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.Equal(t, "clipper-test-cli:1", report.Image)
	require.NotEmpty(t, report.ID)
	require.NotEmpty(t, report.Digest)
	require.Positive(t, report.Size)

	requirements := filepath.Join(t.TempDir(), "requirements.txt")
	require.NoError(t, os.WriteFile(requirements, []byte("no-such-package\n"), 0o600))
	code, _, stderr = run(t, "", "", append(words, base, "--requirements", requirements)...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, `clipper: the step "RUN pip install --no-cache-dir -r /adapter/requirements.txt" failed`)
	require.Contains(t, stderr, "\nERROR: No matching distribution found for no-such-package\n")
	require.Contains(t, stderr, "--build-arg PIP_INDEX_URL=URL")

	code, _, stderr = run(t, "", "", append(words, "clipper-no-such-base:1")...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "The engine needs the image clipper-no-such-base:1")
}
