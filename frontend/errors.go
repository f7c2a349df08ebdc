// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// Limits of the API; see the comments in proto/clipper/v1.
const (
	maxBatch      = 10_000
	maxContext    = 256
	maxID         = 128
	maxFeedbackID = 64 << 10
)

func invalid(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, format, args...)
}

func missing(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field, format, args...)
}

func tooLarge(field, format string, args ...any) error {
	return apierror.New(codes.ResourceExhausted, clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, field, format, args...)
}

// fromJSON turns an error of package naturaljson into the error that the caller sees.
func fromJSON(err error) error {
	var e *naturaljson.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Reason == clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE:
		return tooLarge(e.Path, "%v", e)
	}
	return apierror.Invalid(e.Reason, e.Path, "%v", e)
}

// checkText requires UTF-8 of at most limit bytes.
func checkText(field, text string, limit int) error {
	switch {
	case len(text) > limit:
		return invalid(field, "%s has %d bytes, expected at most %d", field, len(text), limit)
	case !utf8.ValidString(text):
		return invalid(field, "%s is not UTF-8", field)
	}
	return nil
}

// element is an input tensor by its place. It becomes text only where something is wrong with it.
type element int

func (e element) String() string { return "inputs[" + strconv.Itoa(int(e)) + "]" }

// shorten keeps what a caller sent from filling a message.
func shorten(s string) string {
	if len(s) > 80 {
		s = s[:77] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func specNames(specs []*clipperv1.TensorSpec) string {
	quoted := make([]string, len(specs))
	for i, s := range specs {
		quoted[i] = strconv.Quote(s.GetName())
	}
	return strings.Join(quoted, ", ")
}
