// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// recheck is how often files are looked at, at most: when somebody connects.
	recheck = time.Second
	// soon is how long before its end a certificate should have been renewed.
	soon = 7 * 24 * time.Hour
)

// files is a configuration made of files, which it looks at when it is asked and some time has passed. So
// there is nothing to run, and a change by rename, by writing or by a symbolic link is noticed alike.
type files struct {
	log   *slog.Logger
	paths []string
	load  func() (*tls.Config, error)

	mu      sync.Mutex
	checked time.Time
	seen    []os.FileInfo // As they were before they were read; nil when that failed.
	current *tls.Config
	failed  string // What was last said to be wrong.
}

func open(log *slog.Logger, paths []string, load func() (*tls.Config, error)) (*files, error) {
	f := &files{log: log, paths: paths, load: load, checked: time.Now()}
	f.seen = f.look()
	var err error
	if f.current, err = load(); err != nil {
		return nil, err
	}
	f.warn()
	return f, nil
}

// get returns the configuration of the files as they are, or as they last could be used.
func (f *files) get() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.checked) < recheck {
		return f.current
	}
	f.checked = now
	look := f.look()
	if f.seen != nil && look != nil && unchanged(f.seen, look) {
		return f.current
	}
	cfg, err := f.load()
	if err != nil {
		// Perhaps only one of them has been written yet: it is tried again.
		f.seen = nil
		if text := err.Error(); text != f.failed {
			f.failed = text
			f.log.Error("certificates are not read again; those before stay in use", "cause", err)
		}
		return f.current
	}
	f.seen, f.current, f.failed = look, cfg, ""
	f.log.Info("certificates were read again", "files", f.paths, "expires", expires(cfg))
	f.warn()
	return f.current
}

// warn says when a certificate has ended, or will soon.
func (f *files) warn() {
	if at := expires(f.current); !at.IsZero() && time.Until(at) < soon {
		f.log.Warn("the certificate ends soon, or has ended: renew it", "certificate", f.paths[0], "expires", at)
	}
}

// look returns what the files look like, nil when one cannot be looked at.
func (f *files) look() []os.FileInfo {
	infos := make([]os.FileInfo, len(f.paths))
	for i, path := range f.paths {
		var err error
		if infos[i], err = os.Stat(path); err != nil {
			return nil
		}
	}
	return infos
}

func unchanged(a, b []os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}
