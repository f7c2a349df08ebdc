# SPDX-License-Identifier: Apache-2.0
"""Why calls fail."""

from __future__ import annotations

import math
from typing import Any, Optional

import grpc
from clipper_proto.v1 import error_pb2

_DOMAIN = "clipper.dev"
_DETAILS = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
# What a call that was not answered says by its code.
_REASONS = {grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE", grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE"}
# How far the two clocks of a deadline may be apart.
_DEADLINE_SLACK_SECONDS = 0.05
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ClipperError(Exception):
    """Clipper refused a call, could not be reached, or could not do what was asked.

    code is the gRPC code, the class of the error; None when no call failed. reason is the cause for
    programs to test, such as "OVERLOADED" (docs/errors.md has all); "" when the error does not come
    from Clipper. message is for people. field is the path of the request's field at fault, or "".
    retry_after is the time in seconds after which a repetition may succeed; None when that is not
    known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Optional[grpc.StatusCode] = None,
        reason: str = "",
        field: str = "",
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(f"{reason}: {message}" if reason else message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_after = retry_after


def from_rpc(error: Any, left: float = math.inf) -> ClipperError:
    """Returns what a grpc.RpcError of either kind says; left is the time in seconds until the call's deadline."""
    code: grpc.StatusCode = error.code()
    if code == grpc.StatusCode.CANCELLED and left < _DEADLINE_SLACK_SECONDS:
        # The server gave the call up at its deadline, and says so by cancelling, before it passed here.
        return ClipperError("the deadline passed before the call was done", code=grpc.StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE")
    # Here, so that who only saves functions needs no more than a container has.
    from google.rpc import error_details_pb2, status_pb2

    message, reason, field, retry_after = error.details() or "", _REASONS.get(code, ""), "", None
    answered = False
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info) and info.domain == _DOMAIN:
                    answered, reason, field = True, info.reason, info.metadata.get("field", "")
                elif detail.Unpack(retry):
                    retry_after = _seconds(retry.retry_delay)
    if code == grpc.StatusCode.UNAVAILABLE and not answered:
        message = f"Clipper cannot be reached; does `clipper up` run there? {message}"
    return ClipperError(message, code=code, reason=reason, field=field, retry_after=retry_after)


def from_item(error: error_pb2.Error) -> ClipperError:
    """Returns the error of an item of a batch or a stream."""
    reason = error_pb2.ErrorReason.Name(error.reason)[len(_PREFIX) :] if error.reason else ""
    return ClipperError(
        error.message,
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=reason,
        field=error.field,
        retry_after=_seconds(error.retry_after) if error.HasField("retry_after") else None,
    )


def _seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)
