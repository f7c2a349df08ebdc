// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// longest is how long a name may be so that those of pods, which Kubernetes makes by appending to it, still fit into
// the 63 characters of a host name.
const longest = 46

var (
	noName  = regexp.MustCompile(`[^a-z0-9]+`)
	noValue = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
	value   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

// objectName returns the name of the objects of a version: fit for a Service, which is the most restricted, and
// different for all that differs, however alike it looks to Kubernetes: "A.b" and "a-b" are not one model.
func objectName(installation, model, version string) string {
	hash := digest(installation, model, version)[:10]
	name := "clipper-" + strings.Trim(noName.ReplaceAllString(strings.ToLower(model+"-"+version), "-"), "-")
	name = strings.TrimRight(name[:min(len(name), longest-1-len(hash))], "-")
	return name + "-" + hash
}

// labelValue returns the name itself if it may be a label's value, or else one that is derived from it and different
// for different names.
func labelValue(name string) string {
	if value.MatchString(name) {
		return name
	}
	hash := digest(name)[:10]
	short := noValue.ReplaceAllString(name, "-")
	short = strings.Trim(short[:min(len(short), 63-1-len(hash))], "-._")
	return strings.TrimLeft(short+"."+hash, ".")
}

// digest does not depend on where one part ends and the next begins.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
