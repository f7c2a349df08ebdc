// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/containerrpc/image"
)

var update = flag.Bool("update", false, "write the golden files")

func savedModel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "saved")
	require.NoError(t, os.WriteFile(path, []byte("weights"), 0o600))
	return path
}

// unpack returns the files of a context, from its archive.
func unpack(t *testing.T, c *image.Context) map[string]string {
	t.Helper()
	var archive bytes.Buffer
	require.NoError(t, c.Archive(&archive))
	files := map[string]string{}
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Zero(t, header.Uid)
		require.Equal(t, 1980, header.ModTime.UTC().Year())
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		files[header.Name] = string(text)
	}
	return files
}

// TestGolden holds the Dockerfile and the requirements of every framework.
func TestGolden(t *testing.T) {
	require.Contains(t, image.Frameworks(), "sklearn")
	for _, framework := range image.Frameworks() {
		t.Run(framework, func(t *testing.T) {
			s := image.Spec{Name: "digits:1", Framework: framework, Version: "v1.0.0", Path: savedModel(t)}
			if framework == "http" || framework == "oip" {
				s.Path = ""
				s.Environment = map[string]string{"B": `say "$HOME" \ `, "A": "1"}
			}
			c, err := image.New(s)
			require.NoError(t, err)
			files := unpack(t, c)
			got := files["Dockerfile"] + "\n--- requirements.txt\n" + files["requirements.txt"]
			name := filepath.Join("testdata", framework+".golden")
			if *update {
				require.NoError(t, os.WriteFile(name, []byte(got), 0o600))
			}
			want, err := os.ReadFile(name)
			require.NoError(t, err, "go test ./containerrpc/image -update writes it")
			require.Equal(t, string(want), got)

			adapter, err := os.ReadFile(filepath.Join("..", "adapters", framework, "adapter.py"))
			require.NoError(t, err)
			require.Equal(t, string(adapter), files["adapter/adapter.py"])
			packages := map[string]string{"clipper_container": "../python/src", "clipper_proto": "../../gen/python/src"}
			if strings.Contains(string(adapter), "clipper_htk") {
				packages["clipper_htk"] = "../htk/src"
			}
			for name, folder := range packages {
				requireWhole(t, files, folder, name)
			}
		})
	}
}

// requireWhole checks that a context has every module of a package.
func requireWhole(t *testing.T, files map[string]string, folder, name string) {
	t.Helper()
	modules := 0
	err := filepath.WalkDir(filepath.Join(folder, name), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".py" {
			modules++
			inside, err := filepath.Rel(folder, path)
			require.NoError(t, err)
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(text), files["adapter/"+filepath.ToSlash(inside)], "%s; sources.go names the folders", path)
		}
		return err
	})
	require.NoError(t, err)
	require.NotZero(t, modules)
}

// TestReproducible: who owns a model and when it was written makes no difference; what is in it does.
func TestReproducible(t *testing.T) {
	digest := func(text string, mode fs.FileMode, age time.Duration) string {
		folder := filepath.Join(t.TempDir(), "moods")
		require.NoError(t, os.MkdirAll(filepath.Join(folder, "deep"), 0o700))
		for _, name := range []string{"b.json", "deep/a.bin"} {
			path := filepath.Join(folder, name)
			require.NoError(t, os.WriteFile(path, []byte(text), mode))
			when := time.Now().Add(-age)
			require.NoError(t, os.Chtimes(path, when, when))
		}
		c, err := image.New(image.Spec{Name: "moods", Framework: "huggingface", Path: folder, Environment: map[string]string{"X": "1", "Y": "2", "Z": "3"}})
		require.NoError(t, err)
		require.Subset(t, c.Names(), []string{"model/b.json", "model/deep/a.bin"})
		require.True(t, slices.IsSorted(c.Names()))
		digest, err := c.Digest()
		require.NoError(t, err)
		return digest
	}
	first := digest("weights", 0o600, 0)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", first)
	require.Equal(t, first, digest("weights", 0o640, time.Hour))
	require.NotEqual(t, first, digest("others", 0o600, 0))
}

// TestWrite: a folder has what the archive has.
func TestWrite(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(savedModel(t), link))
	c, err := image.New(image.Spec{Name: "digits", Framework: "sklearn", Path: link})
	require.NoError(t, err)
	folder := filepath.Join(t.TempDir(), "new", "folder")
	require.NoError(t, c.Write(folder))
	for name, want := range unpack(t, c) {
		text, err := os.ReadFile(filepath.Join(folder, name))
		require.NoError(t, err)
		require.Equal(t, want, string(text), name)
	}
	require.ErrorIs(t, c.Write(folder), image.ErrExists)
}

func TestRequirements(t *testing.T) {
	path := filepath.Join(t.TempDir(), "requirements.txt")
	require.NoError(t, os.WriteFile(path, []byte("# mine\nscikit-learn==1.5.2\nNumPy == 1.26.4\nGrpcio_Health.Checking>=1.70\n"), 0o600))
	c, err := image.New(image.Spec{Name: "digits", Framework: "sklearn", Path: savedModel(t), Requirements: path})
	require.NoError(t, err)
	got := unpack(t, c)["requirements.txt"]
	require.Contains(t, got, "scikit-learn==1.5.2\nNumPy == 1.26.4\nGrpcio_Health.Checking>=1.70\n# What Clipper's runtime needs.\ngrpcio==")
	require.NotContains(t, got, "joblib")
	require.NotContains(t, got, "\nnumpy==")
	require.NotContains(t, got, "\ngrpcio-health-checking==")
}

func TestRefuses(t *testing.T) {
	saved := savedModel(t)
	empty := t.TempDir()
	dangling := t.TempDir()
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dangling, "weights")))
	looping := t.TempDir()
	require.NoError(t, os.Symlink(looping, filepath.Join(looping, "again")))
	for name, test := range map[string]struct {
		spec image.Spec
		want string
	}{
		"unknown framework": {image.Spec{Framework: "cobol", Path: saved}, `no adapter of the framework "cobol": there are caffe, closure, `},
		"outside":           {image.Spec{Framework: "../sklearn", Path: saved}, "no adapter of the framework"},
		"compiled":          {image.Spec{Framework: "onnx-cpp", Path: saved}, "or take onnx, which serves the same models"},
		"no model":          {image.Spec{Framework: "sklearn"}, "serves a saved model"},
		"a model too many":  {image.Spec{Framework: "http", Path: saved}, "serves no saved model"},
		"no such file":      {image.Spec{Framework: "sklearn", Path: saved + "x"}, "no such file"},
		"empty folder":      {image.Spec{Framework: "sklearn", Path: empty}, "there is no file in"},
		"dangling link":     {image.Spec{Framework: "sklearn", Path: dangling}, "no such file"},
		"link to a folder":  {image.Spec{Framework: "sklearn", Path: looping}, "neither a file nor a link to one"},
		"bad base":          {image.Spec{Framework: "sklearn", Path: saved, Base: "a\nRUN x"}, "no name of an image"},
		"bad variable":      {image.Spec{Framework: "http", Environment: map[string]string{"A B": ""}}, "no name of an environment variable"},
		"lines":             {image.Spec{Framework: "http", Environment: map[string]string{"A": "1\nRUN x"}}, "more than one line"},
		"no requirements":   {image.Spec{Framework: "http", Requirements: saved + "x"}, "read the requirements"},
	} {
		t.Run(name, func(t *testing.T) {
			test.spec.Name = "digits"
			_, err := image.New(test.spec)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// TestShrinks: a model that is being written is no model yet.
func TestShrinks(t *testing.T) {
	saved := savedModel(t)
	c, err := image.New(image.Spec{Name: "digits", Framework: "sklearn", Path: saved})
	require.NoError(t, err)
	require.NoError(t, os.Truncate(saved, 3))
	require.ErrorContains(t, c.Archive(io.Discard), "model became shorter while it was read")
}
