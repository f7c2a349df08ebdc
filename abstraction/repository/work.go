// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

const (
	deployed = clipperv1.RepositoryState_REPOSITORY_STATE_DEPLOYED
	waiting  = clipperv1.RepositoryState_REPOSITORY_STATE_WAITING
	skipped  = clipperv1.RepositoryState_REPOSITORY_STATE_SKIPPED
	failed   = clipperv1.RepositoryState_REPOSITORY_STATE_FAILED
)

// memory is what is known of a model from one look to the next.
type memory struct{ versions map[string]*attempt }

// attempt is what is known of a version.
type attempt struct {
	state    string // the fingerprint of its files and settings at the last look
	deployed string // that with which it was deployed, or first found deployed
	missing  int    // looks in a row at which it was not there
	failures int    // attempts in a row
	retry    time.Time
	cause    string // of the last failure
}

// fail records a failure: there is no other attempt for a while, unless the files change.
func (a *attempt) fail(first time.Duration, cause string) {
	a.failures++
	a.retry, a.cause = time.Now().Add(backoff(first, a.failures)), cause
}

// work is what is to be done about one model at one look.
type work struct {
	r      *Repository
	models Models
	name   string
	folder *folder
	memory *memory
	have   *clipperv1.Model // nil when none is deployed

	newer   bool // a newer version than those that are still to be looked at is deployed and well
	entries []*clipperv1.RepositoryVersion
	kept    []Version // whose files must stay
}

func (w *work) say(version string, state clipperv1.RepositoryState, message string) {
	w.entries = append(w.entries, &clipperv1.RepositoryVersion{Model: w.name, Version: version, State: state, Message: message})
}

// deployed returns a version that is deployed, whoever has done it; or nil.
func (w *work) deployed(version string) *clipperv1.ModelVersion {
	for _, v := range w.have.GetVersions() {
		if v.GetVersion() == version {
			return v
		}
	}
	return nil
}

// wanted is a version that is there.
type wanted struct {
	Version
	content  *content
	settings *settings
	attempt  *attempt
	state    string // the fingerprint of its files and settings
	steady   bool   // they were the same at the look before
	here     bool   // its files are on this machine
	changed  bool   // it is deployed with others
	problem  string
}

// run does the work.
func (w *work) run(ctx context.Context) {
	policy, hold, problem := w.policy(ctx)
	if problem != "" {
		w.say("", failed, problem)
		w.remove(ctx, nil)
		w.keepDeployed()
		return
	}
	names := w.folder.newest()
	if len(names) > maxVersions {
		w.say("", failed, fmt.Sprintf("there are %d versions: want at most %d", len(names), maxVersions))
		names = names[:maxVersions]
	}
	left, all := policy.count(), policy.count() == 0
	spare := left // versions that cannot serve and are not counted
	surplus := map[string]bool{}
	for _, name := range names {
		v := w.look(ctx, name)
		switch {
		case len(policy.Only) > 0 && !slices.Contains(policy.Only, name):
			surplus[name] = true
			w.say(name, skipped, "versions.only does not name it")
		case !all && left == 0:
			surplus[name] = true
			w.say(name, skipped, fmt.Sprintf("versions.latest is %d, and newer ones are deployed", policy.count()))
		default:
			switch w.ensure(ctx, v) {
			case serves:
				left--
				w.newer = true
			case broken: // An older one takes its place, but not one after the other.
				if spare--; spare < 0 {
					left--
				}
			}
		}
		if v.here && !v.changed {
			w.kept = append(w.kept, v.Version)
		}
	}
	for _, name := range policy.Only {
		if w.folder.versions[name] == nil {
			w.say(name, failed, "versions.only names it, and it is not there")
		}
	}
	if !hold {
		w.giveWay(ctx)
	}
	w.remove(ctx, surplus)
	w.keepDeployed()
}

// giveWay makes the newest version that serves current, if the current one is of this repository and
// cannot serve: the first version of a model is current before it was seen to serve.
func (w *work) giveWay(ctx context.Context) {
	current := w.deployed(w.have.GetCurrentVersion())
	if current == nil || !w.r.owns(current) || outcomeOf(current) != broken {
		return
	}
	next := w.newestReady(current)
	if next == "" {
		return
	}
	if _, err := w.models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: w.name, Version: next}); err != nil {
		w.r.deps.Logger.Warn("current version cannot serve and cannot be replaced", "model", w.name, "version", current.GetVersion(), "error", err)
		return
	}
	w.have.CurrentVersion = next
	w.r.deps.Logger.Warn("current version cannot serve; another one has become current", "model", w.name, "version", current.GetVersion(), "current", next)
}

// newestReady returns the newest version that serves and is not about to go, other than one; or "".
func (w *work) newestReady(but *clipperv1.ModelVersion) string {
	newest := ""
	for _, v := range w.have.GetVersions() {
		serves := v.GetState() == clipperv1.ModelState_MODEL_STATE_READY || v.GetState() == clipperv1.ModelState_MODEL_STATE_DEGRADED
		stays := !w.r.owns(v) || w.folder.versions[v.GetVersion()] != nil
		if serves && stays && v != but && (newest == "" || compareVersions(v.GetVersion(), newest) > 0) {
			newest = v.GetVersion()
		}
	}
	return newest
}

// keepDeployed keeps the files of versions that are deployed, whatever has become of them in the
// repository.
func (w *work) keepDeployed() {
	for _, have := range w.have.GetVersions() {
		known := slices.ContainsFunc(w.kept, func(v Version) bool { return v.Version == have.GetVersion() })
		if w.r.owns(have) && !known {
			w.kept = append(w.kept, Version{Model: w.name, Version: have.GetVersion()})
		}
	}
}

// policy returns the model's version policy and whether new versions are held, or why nothing can be
// made of the folder.
func (w *work) policy(ctx context.Context) (p versionPolicy, hold bool, problem string) {
	if w.folder.problem != "" {
		return p, false, w.folder.problem
	}
	s, err := w.settings(ctx, w.folder.config)
	if err != nil {
		return p, false, err.Error()
	}
	return s.Versions, s.Hold, ""
}

// settings reads settings files, each over those before.
func (w *work) settings(ctx context.Context, files ...*File) (*settings, error) {
	s := &settings{}
	for _, f := range files {
		if f == nil {
			continue
		}
		text, err := w.r.read(ctx, *f)
		if err != nil {
			return nil, err
		}
		if err := s.parse(text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return s, nil
}

// look returns what is to be known of a version without fetching it.
func (w *work) look(ctx context.Context, name string) *wanted {
	c := w.folder.versions[name]
	v := &wanted{Version: Version{Model: w.name, Version: name, Files: c.files}, content: c, attempt: w.memory.versions[name]}
	if v.attempt == nil {
		v.attempt = &attempt{}
		w.memory.versions[name] = v.attempt
	}
	v.attempt.missing = 0
	if c.problem != "" {
		v.problem = c.problem
		return v
	}
	v.Fingerprint, v.state = c.fingerprint(nil), c.fingerprint(w.folder.config)
	v.steady = v.attempt.state == v.state
	if !v.steady {
		v.attempt.state, v.attempt.failures = v.state, 0
	}
	switch {
	case len(c.files) > maxFiles:
		v.problem = fmt.Sprintf("it has %d files: want at most %d", len(c.files), maxFiles)
		return v
	case c.size > int64(w.r.cfg.MaxSize):
		v.problem = fmt.Sprintf("it has %s: want at most %s, or a larger --model-repository-max-size", config.Bytes(c.size), w.r.cfg.MaxSize)
		return v
	}
	s, err := w.settings(ctx, w.folder.config, c.config)
	if err == nil {
		var of *settings
		if of, err = w.settings(ctx, c.config); err == nil && (of.Versions.All || of.Versions.Latest != 0 || len(of.Versions.Only) > 0) {
			err = fmt.Errorf("%s: versions: belongs into the settings of the model, %s/%s", c.config.Path, w.name, ConfigFile)
		}
	}
	if err != nil {
		v.problem = err.Error()
		return v
	}
	v.settings = s
	return v
}

// outcome is what a version is good for.
type outcome int

const (
	absent outcome = iota // it is not deployed
	serves                // it serves, or may yet
	broken                // it is deployed and no replica can serve
)

func outcomeOf(v *clipperv1.ModelVersion) outcome {
	if v.GetState() == clipperv1.ModelState_MODEL_STATE_FAILED {
		return broken
	}
	return serves
}

// ensure deploys a version unless it is deployed.
func (w *work) ensure(ctx context.Context, v *wanted) outcome {
	have := w.deployed(v.Version.Version)
	if have != nil {
		return w.compare(ctx, v, have)
	}
	v.attempt.deployed = ""
	switch {
	case v.problem != "":
		w.say(v.Version.Version, failed, v.problem)
		return absent
	case !v.steady:
		w.say(v.Version.Version, waiting, "its files are deployed when they are the same at the next look")
		return absent
	}
	if err := w.deploy(ctx, v); err != nil {
		w.say(v.Version.Version, failed, err.Error())
		return absent
	}
	w.say(v.Version.Version, deployed, "")
	return serves
}

// compare sees to a version that is deployed already.
func (w *work) compare(ctx context.Context, v *wanted, have *clipperv1.ModelVersion) outcome {
	name, o := v.Version.Version, outcomeOf(have)
	switch {
	case have.GetState() == clipperv1.ModelState_MODEL_STATE_DELETING:
		w.say(name, waiting, "a version of its name is being removed")
		return absent
	case !w.r.owns(have):
		w.say(name, failed, "somebody else has deployed a version of this name: it is left alone; delete it, or give this one another name")
		return o
	case v.problem != "":
		w.say(name, deployed, "it runs on as it was deployed, but would not be deployed again: "+v.problem)
		return o
	}
	if v.attempt.deployed == "" {
		v.attempt.deployed = v.state
	}
	v.changed = v.attempt.deployed != v.state
	// This machine may not have its files yet, or not any more.
	if dir, err := w.fetch(ctx, v); err != nil {
		w.say(name, deployed, "its files cannot be fetched to this machine: "+err.Error())
		return o
	} else if spec, err := v.settings.version(v.Version, v.content, dir, w.r.deps.DecodeSample); err == nil && !sameSource(spec.GetContainer(), have.GetContainer()) {
		v.changed = true
	}
	if !v.changed {
		w.say(name, deployed, "")
		return o
	}
	if o == serves {
		w.say(name, deployed, "its files or settings have changed since it was deployed, and it runs as before: versions do not change, so add the new ones as another version")
		return serves
	}
	// It serves nothing, so that nobody sees it change.
	if !v.steady {
		w.say(name, waiting, "it cannot serve; its new files are deployed when they are the same at the next look")
		return absent
	}
	err := w.undeploy(ctx, have)
	if err == nil {
		err = w.deploy(ctx, v)
	}
	if err != nil {
		w.say(name, failed, "it cannot serve, and its new files cannot be deployed: "+err.Error())
		return absent
	}
	w.say(name, deployed, "")
	return serves
}

// sameSource reports whether two containers run the same.
func sameSource(a, b *clipperv1.Container) bool {
	return proto.Equal(
		&clipperv1.Container{Source: a.GetSource(), Environment: a.GetEnvironment(), Resources: a.GetResources()},
		&clipperv1.Container{Source: b.GetSource(), Environment: b.GetEnvironment(), Resources: b.GetResources()})
}

// fetch brings a version's files here, or says why they did not come the last time.
func (w *work) fetch(ctx context.Context, v *wanted) (string, error) {
	a := v.attempt
	if a.failures > 0 && time.Now().Before(a.retry) {
		return "", fmt.Errorf("%s", a.cause)
	}
	dir, err := w.r.deps.Source.Fetch(ctx, v.Version)
	if err != nil {
		a.fail(w.r.cfg.Poll, message(err))
		return "", err
	}
	v.here = true
	return dir, nil
}

func (w *work) deploy(ctx context.Context, v *wanted) error {
	dir, err := w.fetch(ctx, v)
	if err != nil {
		return err
	}
	spec, err := v.settings.version(v.Version, v.content, dir, w.r.deps.DecodeSample)
	if err == nil {
		spec.Labels[label] = w.r.owner
		_, err = w.models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: spec, KeepCurrent: v.settings.Hold || w.newer || w.older(v.Version.Version)})
		if status.Code(err) == codes.AlreadyExists { // Another instance was first; the next look tells.
			err = nil
		}
	}
	if err != nil {
		v.attempt.fail(w.r.cfg.Poll, message(err))
		return fmt.Errorf("%s", message(err))
	}
	v.attempt.failures, v.attempt.deployed, v.changed = 0, v.state, false
	w.r.deps.Logger.Info("version deployed from the model repository", "model", w.name, "version", v.Version.Version)
	return nil
}

// older reports whether a version is older than the current one, and that one is well: then it does not
// become current.
func (w *work) older(version string) bool {
	current := w.deployed(w.have.GetCurrentVersion())
	return current != nil && compareVersions(version, current.GetVersion()) < 0 && current.GetState() != clipperv1.ModelState_MODEL_STATE_FAILED
}

// remove undeploys the versions of this repository that are not there any more, or that the policy
// leaves out.
func (w *work) remove(ctx context.Context, surplus map[string]bool) {
	maps.DeleteFunc(w.memory.versions, func(name string, _ *attempt) bool {
		return w.folder.versions[name] == nil && w.deployed(name) == nil
	})
	var gone []*clipperv1.ModelVersion
	for _, have := range w.have.GetVersions() {
		name := have.GetVersion()
		switch {
		case !w.r.owns(have) || have.GetState() == clipperv1.ModelState_MODEL_STATE_DELETING:
		case w.folder.versions[name] == nil:
			a := w.memory.versions[name]
			if a == nil {
				a = &attempt{}
				w.memory.versions[name] = a
			}
			if a.missing++; a.missing < 2 {
				w.say(name, deployed, "it is not in the repository any more; if it is not at the next look, it is undeployed")
				continue
			}
			gone = append(gone, have)
		case surplus[name] && name == w.have.GetCurrentVersion():
			w.add(name, "it stays while it is the current version")
		case surplus[name]:
			gone = append(gone, have)
		}
	}
	// The current one last, when it may be alone.
	for i, have := range gone {
		if have.GetVersion() == w.have.GetCurrentVersion() {
			gone = append(slices.Delete(gone, i, i+1), have)
			break
		}
	}
	for _, have := range gone {
		if err := w.undeploy(ctx, have); err != nil {
			w.add(have.GetVersion(), "it cannot be undeployed: "+err.Error())
			continue
		}
		w.r.deps.Logger.Info("version undeployed, which is not in the model repository any more or not wanted by its policy", "model", w.name, "version", have.GetVersion())
	}
}

// add adds to what was said of a version; if nothing was, it is not in the repository any more.
func (w *work) add(version, message string) {
	for _, e := range w.entries {
		if e.Version == version {
			e.Message += "; " + message
			return
		}
	}
	w.say(version, deployed, "it is not in the repository any more; "+message)
}

// undeploy removes a version. If it is current, the newest other one that serves takes its place.
func (w *work) undeploy(ctx context.Context, have *clipperv1.ModelVersion) error {
	if have.GetVersion() == w.have.GetCurrentVersion() {
		if next := w.newestReady(have); next != "" {
			if _, err := w.models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: w.name, Version: next}); err != nil {
				return fmt.Errorf("%s", message(err))
			}
		}
	}
	_, err := w.models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: w.name, Version: have.GetVersion()})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("%s", message(err))
	}
	return nil
}
