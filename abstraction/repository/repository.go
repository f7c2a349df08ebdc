// SPDX-License-Identifier: Apache-2.0

// Package repository keeps the models that are deployed like those in a model repository: a folder or a
// bucket with a folder for each model, and in it a folder for each version.
//
// It looks at the repository again and again. What it finds it deploys through the same calls as anybody
// else, with a label that says so; only versions with its label are ever removed by it. A version is
// deployed when its files were the same at two looks, and removed when it was missing at two looks. What
// is wrong with one model is said of that model, and does not hold up the others.
package repository

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

const (
	labelPrefix = "clipper."
	// label is on every version that a repository has deployed; its value is the repository's location.
	label      = labelPrefix + "repository"
	labelBytes = 200 // of a location; the limit of labels is a little higher

	// maxBackoff is the longest time between two attempts at what fails.
	maxBackoff = 5 * time.Minute
	// atOnce is how many models are worked on at the same time: one may have to be fetched from afar.
	atOnce = 4
	// maxModels and maxVersions bound what is listed of a repository.
	maxModels   = 10_000
	maxVersions = 1_000
	maxFiles    = 10_000 // in a version
)

// Config is how a repository is looked at.
type Config struct {
	// Poll is the time between two looks.
	Poll time.Duration `name:"model-repository-poll" config:"global" default:"5s" help:"Time between two looks at the model repository; a version is deployed when its files were the same at two looks."`
	// MaxSize is the largest version that is deployed.
	MaxSize config.Bytes `name:"model-repository-max-size" config:"global" default:"64GiB" help:"Largest version in the model repository that is deployed (B, KiB, MiB, GiB)."`
}

// Models is what a repository needs of the model administration.
type Models interface {
	DeployModel(context.Context, *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error)
	ListModels(context.Context, *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error)
	SetCurrentVersion(context.Context, *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error)
	DeleteModelVersion(context.Context, *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error)
}

// DecodeSample reads a warm-up sample from JSON, by the signature's inputs if there are any.
type DecodeSample func(text []byte, inputs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error)

// Deps is what a repository needs.
type Deps struct {
	// Source holds the files.
	Source Source
	// DecodeSample reads warm-up samples.
	DecodeSample DecodeSample
	// Logger gets what operators should know.
	Logger *slog.Logger
	// Registerer gets the measurements.
	Registerer prometheus.Registerer
}

// Repository keeps models deployed. Safe for concurrent use, but only one Run.
type Repository struct {
	cfg   Config
	deps  Deps
	owner string // the value of the label

	models map[string]*memory // Of Run alone.
	texts  map[File][]byte    // settings files as read before; guarded by mu
	looks  *prometheus.CounterVec
	states *prometheus.GaugeVec

	mu     sync.Mutex
	status *clipperv1.GetModelRepositoryResponse // never changed, only replaced
}

// New returns a repository. It looks at nothing until it runs.
func New(cfg Config, deps Deps) (*Repository, error) {
	if cfg.Poll < 100*time.Millisecond {
		return nil, fmt.Errorf("set up the model repository: model-repository-poll is %v: want at least 100ms", cfg.Poll)
	}
	r := &Repository{
		cfg: cfg, deps: deps,
		owner:  deps.Source.Location(),
		models: map[string]*memory{},
		texts:  map[File][]byte{},
		status: &clipperv1.GetModelRepositoryResponse{Location: deps.Source.Location()},
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_model_repository_scans_total",
			Help: "Looks at the model repository.",
		}, []string{"result"}),
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "clipper_model_repository_versions",
			Help: "Versions in the model repository, by what has become of them.",
		}, []string{"state"}),
	}
	if len(r.owner) > labelBytes {
		sum := sha256.Sum256([]byte(r.owner))
		r.owner = hex.EncodeToString(sum[:])
	}
	if err := errors.Join(deps.Registerer.Register(r.looks), deps.Registerer.Register(r.states)); err != nil {
		return nil, fmt.Errorf("set up the model repository: %w", err)
	}
	for _, result := range []string{"done", "failed"} {
		r.looks.WithLabelValues(result)
	}
	r.count(nil)
	return r, nil
}

// Status returns what the repository holds and what has become of it. The answer must not be changed.
func (r *Repository) Status() *clipperv1.GetModelRepositoryResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run looks at the repository until ctx ends. While it cannot be looked at, or models cannot be
// administered, the time between two looks doubles.
func (r *Repository) Run(ctx context.Context, models Models) error {
	failures := 0
	for {
		err := r.Scan(ctx, models)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // It was to end.
		case err == nil:
			failures = 0
		default:
			if failures++; failures == 1 {
				r.deps.Logger.Warn("model repository cannot be looked at, still trying", "location", r.deps.Source.Location(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff(r.cfg.Poll, failures)):
		}
	}
}

// backoff returns the time until the next attempt after so many that failed.
func backoff(first time.Duration, failures int) time.Duration {
	d := first
	for range failures {
		if d *= 2; d >= maxBackoff {
			return max(maxBackoff, first)
		}
	}
	return d
}

// Scan looks at the repository once and does what follows. The error says why it could not be looked at;
// what is wrong with single versions is in the Status. Scans must not run at the same time.
func (r *Repository) Scan(ctx context.Context, models Models) error {
	versions, err := r.scan(ctx, models)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	before := r.Status()
	next := &clipperv1.GetModelRepositoryResponse{Location: r.deps.Source.Location(), ScanTime: timestamppb.Now(), Versions: versions}
	if err != nil {
		next.ScanTime, next.Failure, next.Versions = before.ScanTime, message(err), before.Versions
		r.looks.WithLabelValues("failed").Inc()
	} else {
		r.looks.WithLabelValues("done").Inc()
		r.report(before.Versions, versions)
		r.count(versions)
	}
	r.mu.Lock()
	r.status = next
	r.mu.Unlock()
	return err
}

func (r *Repository) scan(ctx context.Context, models Models) ([]*clipperv1.RepositoryVersion, error) {
	files, err := r.deps.Source.List(ctx)
	if err != nil {
		return nil, err
	}
	tree := grow(files)
	if len(tree) > maxModels {
		return nil, fmt.Errorf("there are %d models: want at most %d", len(tree), maxModels)
	}
	have, err := list(ctx, models)
	if err != nil {
		return nil, fmt.Errorf("the models cannot be listed: %s", message(err))
	}
	r.forget(tree)
	names := map[string]bool{}
	for name := range tree {
		names[name] = true
	}
	for name, model := range have {
		if slices.ContainsFunc(model.GetVersions(), r.owns) {
			names[name] = true
		}
	}
	for name := range r.models {
		if !names[name] {
			delete(r.models, name)
		}
	}
	var (
		mu      sync.Mutex
		entries []*clipperv1.RepositoryVersion
		kept    []Version
	)
	var group errgroup.Group // What fails is in the entries.
	group.SetLimit(atOnce)
	for name := range names {
		m := r.models[name]
		if m == nil {
			m = &memory{versions: map[string]*attempt{}}
			r.models[name] = m
		}
		group.Go(func() error {
			w := work{r: r, models: models, name: name, folder: cmp.Or(tree[name], &folder{}), memory: m, have: have[name]}
			w.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			entries, kept = append(entries, w.entries...), append(kept, w.kept...)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() == nil {
		if err := r.deps.Source.Keep(kept); err != nil {
			r.deps.Logger.Warn("files of the model repository cannot be removed", "error", err)
		}
	}
	slices.SortFunc(entries, func(a, b *clipperv1.RepositoryVersion) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), compareVersions(b.Version, a.Version))
	})
	return entries, nil
}

// list returns the models that are deployed, by name.
func list(ctx context.Context, models Models) (map[string]*clipperv1.Model, error) {
	all := map[string]*clipperv1.Model{}
	for req := (&clipperv1.ListModelsRequest{PageSize: 1000}); ; {
		page, err := models.ListModels(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetModels() {
			all[m.GetName()] = m
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all, nil
		}
	}
}

// owns reports whether this repository has deployed a version.
func (r *Repository) owns(v *clipperv1.ModelVersion) bool { return v.GetLabels()[label] == r.owner }

// read returns a settings file, from memory if it is the one that was read before.
func (r *Repository) read(ctx context.Context, f File) ([]byte, error) {
	if f.Size > MaxConfig {
		return nil, fmt.Errorf("%s has %d bytes: want at most %d", f.Path, f.Size, MaxConfig)
	}
	r.mu.Lock()
	text, known := r.texts[f]
	r.mu.Unlock()
	if known {
		return text, nil
	}
	text, err := r.deps.Source.Read(ctx, f)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[f] = text
	return text, nil
}

// forget drops settings files that are not there any more.
func (r *Repository) forget(t tree) {
	there := map[File]bool{}
	for _, f := range t {
		if f.config != nil {
			there[*f.config] = true
		}
		for _, c := range f.versions {
			if c.config != nil {
				there[*c.config] = true
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.texts {
		if !there[f] {
			delete(r.texts, f)
		}
	}
}

// report logs what has changed since the look before.
func (r *Repository) report(before, now []*clipperv1.RepositoryVersion) {
	type key struct{ model, version string }
	last := map[key]*clipperv1.RepositoryVersion{}
	for _, e := range before {
		last[key{e.Model, e.Version}] = e
	}
	for _, e := range now {
		b := last[key{e.Model, e.Version}]
		if b.GetState() == e.State && b.GetMessage() == e.Message {
			continue
		}
		log := r.deps.Logger.With("model", e.Model, "version", e.Version)
		switch e.State {
		case clipperv1.RepositoryState_REPOSITORY_STATE_FAILED:
			log.Warn("version in the model repository cannot be deployed", "cause", e.Message)
		case clipperv1.RepositoryState_REPOSITORY_STATE_DEPLOYED:
			if e.Message != "" {
				log.Warn("version of the model repository", "message", e.Message)
			}
		default:
			log.Debug("version in the model repository", "state", e.State, "message", e.Message)
		}
	}
}

// count sets the measurements.
func (r *Repository) count(entries []*clipperv1.RepositoryVersion) {
	n := map[clipperv1.RepositoryState]int{}
	for _, e := range entries {
		n[e.State]++
	}
	for state, name := range clipperv1.RepositoryState_name {
		if state != 0 {
			r.states.WithLabelValues(strings.ToLower(strings.TrimPrefix(name, "REPOSITORY_STATE_"))).Set(float64(n[clipperv1.RepositoryState(state)]))
		}
	}
}

// message returns what an error says to people.
func message(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}
