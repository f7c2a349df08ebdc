// SPDX-License-Identifier: Apache-2.0

// Package openapi holds the generated description of the REST API.
package openapi

import _ "embed" // For Spec.

// Spec is the whole REST API in OpenAPI 3.1, as JSON. It is not to be modified.
//
//go:embed clipper.openapi.json
var Spec []byte
