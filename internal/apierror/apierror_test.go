// SPDX-License-Identifier: Apache-2.0

package apierror

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestNew_carriesEverything(t *testing.T) {
	err := New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model", "no model %q", "m")
	e := ToProto(fmt.Errorf("deploy: %w", err))
	require.Equal(t, uint32(codes.NotFound), e.Code)
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, e.Reason)
	require.Equal(t, "model", e.Field)
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, Reason(err))
}

func TestOverloaded_saysWhenToComeBack(t *testing.T) {
	e := ToProto(Overloaded(1500*time.Millisecond, "the queue is full"))
	require.Equal(t, uint32(codes.ResourceExhausted), e.Code)
	require.Equal(t, 1500*time.Millisecond, e.RetryAfter.AsDuration())
}

func TestFrom(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"nil":        {nil, codes.OK},
		"status":     {status.Error(codes.Aborted, "x"), codes.Aborted},
		"deadline":   {fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"cancelled":  {context.Canceled, codes.Canceled},
		"everything": {errors.New("open /secret: denied"), codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			got := From(tc.err)
			require.Equal(t, tc.code, status.Code(got))
			if tc.code == codes.Internal {
				require.NotContains(t, got.Error(), "secret")
			}
		})
	}
	require.Nil(t, ToProto(nil))
}
