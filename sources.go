// SPDX-License-Identifier: Apache-2.0

// Package clipper has the sources that images of models are made from, so that an installed binary can make them
// without a checkout.
package clipper

import "embed"

// Adapters has each adapter with what pip installs for it: containerrpc/adapters/<framework>/.
//
//go:embed containerrpc/adapters/*/adapter.* containerrpc/adapters/*/requirements.txt
var Adapters embed.FS

// Python has the packages that adapters in Python import. They are named file by file, so that nothing that
// running them leaves behind is among them.
//
//go:embed containerrpc/python/requirements.txt containerrpc/python/src/clipper_container/*.py
//go:embed gen/python/src/clipper_proto/*.py gen/python/src/clipper_proto/v1/*.py
//go:embed containerrpc/htk/src/clipper_htk/*.py
var Python embed.FS
