// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a source in memory. A file's tag is its text.
type files struct {
	mu      sync.Mutex
	texts   map[string]string
	refused map[string]string
	sizes   map[string]int64 // larger than the text
	failure error
	fetch   error
	fetched []string
	kept    []Version
	lists   int
}

func (f *files) Location() string { return "/models" }

func (f *files) List(context.Context) ([]File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	var all []File
	for path, text := range f.texts {
		all = append(all, File{Path: path, Size: max(f.sizes[path], int64(len(text))), Tag: text, Refused: f.refused[path]})
	}
	return all, f.failure
}

func (f *files) Read(_ context.Context, file File) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []byte(f.texts[file.Path]), nil
}

func (f *files) Fetch(_ context.Context, v Version) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetched = append(f.fetched, v.Model+"/"+v.Version)
	return "/cache/" + v.Model + "/" + v.Version, f.fetch
}

func (f *files) Keep(versions []Version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = versions
	return nil
}

func (f *files) write(texts map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.texts, texts)
}

func (f *files) remove(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.texts, func(path, _ string) bool { return strings.HasPrefix(path, prefix) })
}

// admin is a fake of the model administration. Versions are ready at once, but for those of broken.
type admin struct {
	mu     sync.Mutex
	models map[string]*clipperv1.Model
	broken map[string]bool // by the text "model/version"
	refuse map[string]error
	down   error
}

func (a *admin) ListModels(context.Context, *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &clipperv1.ListModelsResponse{}
	for _, name := range slices.Sorted(maps.Keys(a.models)) {
		m := proto.CloneOf(a.models[name])
		for _, v := range m.Versions {
			v.State = clipperv1.ModelState_MODEL_STATE_READY
			if a.broken[name+"/"+v.Version] {
				v.State = clipperv1.ModelState_MODEL_STATE_FAILED
			}
		}
		resp.Models = append(resp.Models, m)
	}
	return resp, a.down
}

func (a *admin) DeployModel(_ context.Context, req *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, err := catalog.Normalize(req.GetVersion())
	if err != nil {
		return nil, err
	}
	key := v.Model + "/" + v.Version
	if err := a.refuse[key]; err != nil {
		return nil, err
	}
	m := a.models[v.Model]
	if slices.ContainsFunc(m.GetVersions(), func(have *clipperv1.ModelVersion) bool { return have.Version == v.Version }) {
		return nil, apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version", "it is there already")
	}
	if m == nil {
		m = &clipperv1.Model{Name: v.Model, CurrentVersion: v.Version}
		a.models[v.Model] = m
	}
	m.Versions = append(m.Versions, v)
	if !req.GetKeepCurrent() && !a.broken[key] {
		m.CurrentVersion = v.Version
	}
	return &clipperv1.DeployModelResponse{Version: v}, nil
}

func (a *admin) SetCurrentVersion(_ context.Context, req *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.models[req.Model].CurrentVersion = req.Version
	return &clipperv1.SetCurrentVersionResponse{}, nil
}

func (a *admin) DeleteModelVersion(_ context.Context, req *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.models[req.Model]
	if m.CurrentVersion == req.Version && len(m.Versions) > 1 {
		return nil, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_IN_USE, "version", "version %q is the current version", req.Version)
	}
	m.Versions = slices.DeleteFunc(m.Versions, func(v *clipperv1.ModelVersion) bool { return v.Version == req.Version })
	if len(m.Versions) == 0 {
		delete(a.models, req.Model)
	}
	return &clipperv1.DeleteModelVersionResponse{}, nil
}

// has returns what is deployed: "model/version", with a star if it is current.
func (a *admin) has() []string {
	var all []string
	for name, m := range a.models {
		for _, v := range m.Versions {
			text := name + "/" + v.Version
			if v.Version == m.CurrentVersion {
				text += "*"
			}
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return all
}

type fixture struct {
	*testing.T
	*files
	*admin
	*Repository
	registry *prometheus.Registry
}

func start(t *testing.T, texts map[string]string) *fixture {
	f := &fixture{
		T:        t,
		files:    &files{texts: map[string]string{}, refused: map[string]string{}, sizes: map[string]int64{}},
		admin:    &admin{models: map[string]*clipperv1.Model{}, broken: map[string]bool{}, refuse: map[string]error{}},
		registry: prometheus.NewRegistry(),
	}
	f.write(texts)
	r, err := New(Config{Poll: time.Second, MaxSize: config.MiB}, Deps{
		Source: f.files,
		DecodeSample: func(text []byte, inputs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
			return naturaljson.Decode(text, inputs, 1000)
		},
		Logger:     slog.New(slog.DiscardHandler),
		Registerer: f.registry,
	})
	require.NoError(t, err)
	f.Repository = r
	return f
}

// look looks at the repository so many times.
func (f *fixture) look(times int) {
	f.Helper()
	for range times {
		require.NoError(f, f.Scan(f.Context(), f.admin))
	}
}

func (f *fixture) requireDeployed(want ...string) {
	f.Helper()
	require.Equal(f, want, f.has())
}

// of returns what is said of a version, as "STATE: message".
func (f *fixture) of(model, version string) string {
	for _, e := range f.Status().GetVersions() {
		if e.Model == model && e.Version == version {
			return strings.TrimSuffix(strings.TrimPrefix(e.State.String(), "REPOSITORY_STATE_")+": "+e.Message, ": ")
		}
	}
	return ""
}

const sklearn = "framework: sklearn"

func TestAVersionIsDeployedWhenItsFilesAreSteady(t *testing.T) {
	f := start(t, map[string]string{"digits/clipper.yaml": sklearn, "digits/1/model.joblib": "half"})
	f.look(1)
	require.Equal(t, "WAITING: its files are deployed when they are the same at the next look", f.of("digits", "1"))
	f.write(map[string]string{"digits/1/model.joblib": "whole"})
	f.look(1)
	require.Empty(t, f.has(), "it has changed since")
	f.write(map[string]string{"digits/1/.second.tmp": "half"})
	f.look(1)
	require.Empty(t, f.has(), "a file that is hidden is being copied")
	f.look(1)
	f.requireDeployed("digits/1*")
	require.Equal(t, "DEPLOYED", f.of("digits", "1"))
	v := f.admin.models["digits"].Versions[0]
	require.Equal(t, "/cache/digits/1/model.joblib", v.Container.GetAdapter().ModelPath)
	require.Equal(t, map[string]string{"clipper.repository": "/models"}, v.Labels)
	require.Equal(t, 1., testutil.ToFloat64(f.states.WithLabelValues("deployed")))
	require.Equal(t, 4., testutil.ToFloat64(f.looks.WithLabelValues("done")))
}

func TestANewVersionTakesThePlaceOfTheOld(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/9/x": ""})
	f.look(2)
	f.write(map[string]string{"m/10/x": ""})
	f.look(2)
	f.requireDeployed("m/10*", "m/9")
	f.look(1)
	f.requireDeployed("m/10*")
	require.Equal(t, "SKIPPED: versions.latest is 1, and newer ones are deployed", f.of("m", "9"))
}

func TestVersionPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy string
		want   []string
	}{
		{"", []string{"m/10*"}},
		{"versions: {latest: 2}", []string{"m/10*", "m/9"}},
		{"versions: {all: true}", []string{"m/1.2", "m/10*", "m/2", "m/9"}},
		{"versions: {only: ['2', '9']}", []string{"m/2", "m/9*"}},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			f := start(t, map[string]string{"m/clipper.yaml": sklearn + "\n" + tt.policy, "m/10/x": "", "m/9/x": "", "m/2/x": "", "m/1.2/x": ""})
			f.look(4)
			f.requireDeployed(tt.want...)
			f.look(1)
			f.requireDeployed(tt.want...)
		})
	}
}

func TestAVersionIsHeldIfTheSettingsSaySo(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn + "\nhold: true", "m/1/x": ""})
	f.look(2)
	f.write(map[string]string{"m/2/x": ""})
	f.look(3)
	f.requireDeployed("m/1*", "m/2")
	require.Contains(t, f.of("m", "1"), "it stays while it is the current version")
	f.admin.models["m"].CurrentVersion = "2"
	f.look(1)
	f.requireDeployed("m/2*")
}

func TestReplicasAreClippersToChooseIfTheSettingsSaySo(t *testing.T) {
	f := start(t, map[string]string{
		"m/clipper.yaml": sklearn + "\nautoscaling: {min_replicas: 0, max_replicas: 4, target_load: 0.5, scale_down_delay: 1m, idle_timeout: 10m}", "m/1/x": "",
		"n/clipper.yaml": sklearn, "n/1/x": "",
	})
	f.look(2)
	a := f.admin.models["m"].Versions[0].Autoscaling
	require.EqualValues(t, 4, a.GetMaxReplicas())
	require.InDelta(t, 0.5, a.GetTargetLoad(), 0)
	require.Equal(t, []time.Duration{time.Minute, 10 * time.Minute}, []time.Duration{a.GetScaleDownDelay().AsDuration(), a.GetIdleTimeout().AsDuration()})
	require.Nil(t, f.admin.models["n"].Versions[0].Autoscaling)
}

func TestWhatIsGoneIsUndeployed(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn + "\nversions: {latest: 2}", "m/1/x": "", "m/2/x": "", "n/clipper.yaml": sklearn, "n/1/x": ""})
	// Somebody has deployed a model, a version of one, and a version that is there as well.
	for _, v := range []string{"other/1", "n/0.mine", "m/0"} {
		model, version, _ := strings.Cut(v, "/")
		_, err := f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: model, Version: version, Container: &clipperv1.Container{
			Source: &clipperv1.Container_Registered{},
		}}})
		require.NoError(t, err)
	}
	f.look(2)
	f.requireDeployed("m/0", "m/1", "m/2*", "n/0.mine", "n/1*", "other/1*")
	f.remove("m/2/")
	f.remove("n/")
	f.look(1)
	f.requireDeployed("m/0", "m/1", "m/2*", "n/0.mine", "n/1*", "other/1*")
	require.Contains(t, f.of("m", "2"), "if it is not at the next look, it is undeployed")
	f.look(1)
	f.requireDeployed("m/0", "m/1*", "n/0.mine*", "other/1*")
	f.remove("m/")
	f.look(3)
	f.requireDeployed("m/0*", "n/0.mine*", "other/1*")
}

func TestAnotherVersionOfThatNameIsLeftAlone(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": ""})
	_, err := f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: "m", Version: "1", Container: &clipperv1.Container{Source: &clipperv1.Container_Registered{}}}})
	require.NoError(t, err)
	f.look(3)
	require.Contains(t, f.of("m", "1"), "FAILED: somebody else has deployed a version of this name")
	f.remove("m/")
	f.look(3)
	f.requireDeployed("m/1*")
}

func TestGoodModelsServeBesideBrokenOnes(t *testing.T) {
	f := start(t, map[string]string{
		"good/clipper.yaml": sklearn, "good/1/x": "",
		"typo/clipper.yaml": "framwork: sklearn", "typo/1/x": "",
		"syntax/1/clipper.yaml": "a: [", "syntax/1/x": "",
		"nothing/1/x":          "",
		"several/1/x":          "",
		"several/1/y":          "",
		"several/clipper.yaml": sklearn,
		"refused/1/x":          "", "refused/clipper.yaml": sklearn,
		"link/1/x": "", "link/clipper.yaml": sklearn,
		"large/1/x": "", "large/clipper.yaml": sklearn,
		"bad name/1/x": "", "n/bad version/x": "", "../x/y": "",
		"policy/clipper.yaml": "versions: {latest: 1, all: true}", "policy/1/x": "",
		"deep/1/clipper.yaml":  sklearn + "\nversions: {all: true}",
		"invalid/clipper.yaml": sklearn + "\nreplicas: 1000", "invalid/1/x": "",
		"README.md": "", ".git/config/x": "",
	})
	f.refuse["refused/1"] = apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, "", "no adapter is installed for it")
	f.refused["link/1/x"] = "is a link"
	f.sizes["large/1/x"] = 2 << 20
	f.look(2)
	f.requireDeployed("good/1*")
	for key, want := range map[[2]string]string{
		{"typo", ""}:         `typo/clipper.yaml: line 1: framwork is no setting`,
		{"syntax", "1"}:      "syntax/1/clipper.yaml: line 1",
		{"nothing", "1"}:     "it does not say what serves the model: write framework, command, address, image or registered into nothing/clipper.yaml or nothing/1/clipper.yaml",
		{"several", "1"}:     `which of x, y is the saved model? Say so with file, or "file: ." for the folder itself`,
		{"refused", "1"}:     "no adapter is installed for it",
		{"link", "1"}:        `"x" is a link`,
		{"large", "1"}:       "it has 2MiB: want at most 1MiB, or a larger --model-repository-max-size",
		{"bad name", ""}:     "is not a name of a model",
		{"n", "bad version"}: "is not a name of a version",
		{"..", ""}:           "is not a name of a model",
		{"policy", ""}:       "latest, all and only exclude each other",
		{"deep", "1"}:        "belongs into the settings of the model, deep/clipper.yaml",
		{"invalid", "1"}:     "version.replicas: want 0 to 256 replicas, not 1000",
	} {
		require.Contains(t, f.of(key[0], key[1]), "FAILED: ", key)
		require.Contains(t, f.of(key[0], key[1]), want)
	}
	require.Equal(t, 13., testutil.ToFloat64(f.states.WithLabelValues("failed")))
	// Corrected, they are deployed.
	f.write(map[string]string{"typo/clipper.yaml": sklearn})
	f.look(2)
	f.requireDeployed("good/1*", "typo/1*")
}

func TestABrokenVersionLeavesTheOldOne(t *testing.T) {
	t.Run("that is not deployed", func(t *testing.T) {
		f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": "", "m/2/clipper.yaml": "x: y", "m/2/x": ""})
		f.look(4)
		f.requireDeployed("m/1*")
	})
	t.Run("whose replicas cannot serve", func(t *testing.T) {
		f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/0/x": "", "m/1/x": "", "m/2/x": ""})
		f.broken["m/2"] = true
		f.look(5)
		f.requireDeployed("m/1*", "m/2")
		require.Equal(t, []string{"m/1", "m/2"}, kept(f), "not the files of those that are not deployed")
		// All of them broken, not all are started.
		f.broken["m/1"] = true
		f.look(5)
		f.requireDeployed("m/1*", "m/2")
	})
}

func kept(f *fixture) []string {
	var all []string
	for _, v := range f.kept {
		all = append(all, v.Model+"/"+v.Version)
	}
	slices.Sort(all)
	return all
}

func TestFilesThatChangeAfterwards(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": "a"})
	f.look(2)
	f.write(map[string]string{"m/1/x": "b"})
	f.look(2)
	require.Contains(t, f.of("m", "1"), "DEPLOYED: its files or settings have changed since it was deployed")
	require.Equal(t, []Version{{Model: "m", Version: "1"}}, f.kept, "it still needs the old files")
	f.requireDeployed("m/1*")
	before := f.admin.models["m"].Versions[0]
	// One that serves nothing is replaced.
	f.broken["m/1"] = true
	f.look(1)
	f.requireDeployed("m/1*")
	require.NotSame(t, before, f.admin.models["m"].Versions[0])
	require.Equal(t, "DEPLOYED", f.of("m", "1"))
	after := f.admin.models["m"].Versions[0]
	f.look(3)
	require.Same(t, after, f.admin.models["m"].Versions[0], "only once")
}

func TestAnotherProcessKnowsWhatWasDeployed(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": "a", "n/clipper.yaml": sklearn, "n/1/x": ""})
	f.look(2)
	f.remove("n/")
	second := start(t, f.files.texts)
	second.admin.models = f.admin.models
	second.look(1)
	require.Equal(t, "DEPLOYED", second.of("m", "1"))
	second.look(1)
	second.requireDeployed("m/1*")
}

func TestWhatFailsIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": ""})
		f.fetch = errors.New("there is no space for it")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Repository.Run(ctx, f.admin) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "FAILED: there is no space for it", f.of("m", "1"))
		n := len(f.fetched)
		require.InDelta(t, 5, n, 1, "after 1, 2, 4, 8, 16 s and so on")
		f.files.mu.Lock()
		f.fetch = nil
		f.files.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "DEPLOYED", f.of("m", "1"))
		cancel()
		require.NoError(t, <-done)
	})
}

func TestWhileTheRepositoryCannotBeSeenNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": ""})
		f.look(2)
		f.remove("")
		f.failure = errors.New("the bucket is away")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		before := f.lists
		go func() { done <- f.Repository.Run(ctx, f.admin) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		f.requireDeployed("m/1*")
		require.Equal(t, "the bucket is away", f.Status().GetFailure())
		require.Equal(t, "DEPLOYED", f.of("m", "1"), "as it was last known")
		require.InDelta(t, 6, f.lists-before, 1)
		require.Positive(t, testutil.ToFloat64(f.looks.WithLabelValues("failed")))
		cancel()
		require.NoError(t, <-done)
	})
}

func TestCompareVersions(t *testing.T) {
	for i, a := range []string{"1", "1.9", "1.10", "2", "9", "10", "a", "v2", "v10", "v10-rc"} {
		for j, b := range []string{"1", "1.9", "1.10", "2", "9", "10", "a", "v2", "v10", "v10-rc"} {
			got := compareVersions(a, b)
			switch {
			case i < j:
				require.Negative(t, got, "%s %s", a, b)
			case i > j:
				require.Positive(t, got, "%s %s", a, b)
			default:
				require.Zero(t, got)
			}
		}
	}
	require.NotZero(t, compareVersions("01", "1"), "two versions are never the same")
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Poll: time.Millisecond}, Deps{Source: &files{}, Registerer: prometheus.NewRegistry()})
	require.ErrorContains(t, err, "model-repository-poll")
}

func TestACurrentVersionThatCannotServeGivesWay(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": "", "m/2/x": ""})
	f.broken["m/2"] = true
	f.look(4)
	f.requireDeployed("m/1*", "m/2")
}

func TestSeveralInstancesDeployAVersionOnce(t *testing.T) {
	f := start(t, map[string]string{"m/clipper.yaml": sklearn, "m/1/x": "a", "m/2/x": "a"})
	second := start(t, f.files.texts)
	second.admin = f.admin
	f.look(1)
	second.look(1)
	var both sync.WaitGroup
	for _, r := range []*fixture{f, second} {
		both.Go(func() { _ = r.Scan(t.Context(), f.admin) })
	}
	both.Wait()
	f.look(1)
	second.look(1)
	f.requireDeployed("m/2*")
	require.Equal(t, "DEPLOYED", f.of("m", "2"))
	require.Equal(t, "DEPLOYED", second.of("m", "2"))
}

func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{"a/b", "a/../../b", "/a", "a//b", "..", "a/..b", "a\\..\\b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckPath(name) == "" {
			require.True(t, filepath.IsLocal(filepath.FromSlash(name)), name)
			require.Equal(t, filepath.Clean(name), name)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte("framework: sklearn\nversions: {latest: 2}\nwarm_up: {samples: [[1, 2]]}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		s := &settings{}
		if s.parse(text) == nil {
			decode := func(text []byte, inputs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
				return naturaljson.Decode(text, inputs, 1000)
			}
			_, _ = s.version(Version{Model: "m", Version: "1"}, &content{files: []File{{Path: "m/1/x"}}}, "/m/1", decode)
		}
	})
}
