// SPDX-License-Identifier: Apache-2.0

// Package replica is the client's side of one model container: it keeps a connection to it, takes
// batches from the version's queue, and hands out what comes back.
package replica

import clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"

// Replica is one container of a model version. Safe for concurrent use.
type Replica struct{}

// Status returns what the replica is doing.
func (r *Replica) Status() *clipperv1.Replica { return nil }
