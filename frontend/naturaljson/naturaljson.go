// SPDX-License-Identifier: Apache-2.0

// Package naturaljson translates between tensors and the JSON that people write: a number, a list,
// nested lists, a string, {"b64": "..."} for bytes, or an object with one member for each named
// tensor. A signature says how to read it, so that no caller names a data type.
//
// Reading is strict: only what RFC 8259 allows, no repeated member, no number that its type cannot
// hold, no ragged list. An error says where it is, as a path and as a byte offset. Memory grows in
// proportion to the text that has been read, never to a length that it declares.
//
// Everything here is safe for concurrent use.
package naturaljson

import (
	"fmt"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// maxRank is the most dimensions of a tensor.
	maxRank = 32
	// maxInputs is the most tensors of an input whose signature is not known.
	maxInputs = 64
)

// Error says what is wrong with a JSON text, and where.
type Error struct {
	// Reason is the cause for programs.
	Reason clipperv1.ErrorReason
	// Path is the value at fault: "input[3][2]", "input.image".
	Path string
	// Offset is the position of the fault in bytes from the start of the text.
	Offset int
	// Message says what is wrong and what was expected.
	Message string
}

// Error returns path, message and position.
func (e *Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s (at byte %d)", e.Message, e.Offset)
	}
	return fmt.Sprintf("%s: %s (at byte %d)", e.Path, e.Message, e.Offset)
}

const (
	malformed    = clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON
	missingField = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
	invalidField = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
	inputType    = clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE
	inputShape   = clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE
	inputValue   = clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE
	tooLarge     = clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE
)
