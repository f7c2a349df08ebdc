// SPDX-License-Identifier: Apache-2.0

// Package helm has the Helm chart of the suite, in the folder clipper. Its tests lint it, render it, and hold what
// comes out against the types of the Kubernetes API.
package helm
