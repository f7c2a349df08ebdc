# SPDX-License-Identifier: Apache-2.0
"""Errors that a model raises or returns, and how they travel."""

from __future__ import annotations

import enum
import errno
import re

from clipper_proto.v1 import error_pb2

# A message travels with each answer and ends in front of people; no framework needs more.
MAX_MESSAGE = 2000

# The stack of another language in what a framework says: it says nothing to a caller, and shows him the paths of
# the machine. The log has it.
STACK = re.compile(
    r"^(?:Stack trace:|JVM stacktrace:|Traceback\b.*)$(?:\n(?:[ \t].*)?)*"  # with all that is indented below
    r"|^[ \t]+(?:at |\.\.\. \d+ more).*$",
    re.MULTILINE,
)


# What frameworks say when the machine has no memory for them: most do so in an exception of their own.
NO_MEMORY = re.compile(
    r"bad_alloc|out ?of ?memory|\bOOM\b|(?:insufficient|not enough) memory|(?:unable to|failed to|could not|can'?t|cannot) allocate",
    re.IGNORECASE,
)


class Code(enum.IntEnum):
    """Codes of google.rpc.Code. Those of the package grpc would load it beside the model, which needs none."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13


class RowError(Exception):
    """One row cannot be predicted; the others can.

    Put it in the place of the row's output in the list that ``predict`` returns.
    """


class ModelError(Exception):
    """The model can never be loaded: the file is missing, broken or of the wrong kind.

    Raised while the model is loaded it ends the process with exit code 78, which tells the
    launcher not to try again. The message says what was expected.
    """


class BatchError(Exception):
    """A batch failed as a whole for a cause that the runtime knows."""

    def __init__(self, code: Code, reason: error_pb2.ErrorReason, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code, self.reason, self.field = code, reason, field


def invalid(message: str, field: str) -> BatchError:
    """Returns the error of a request that breaks the container protocol."""
    return BatchError(Code.INVALID_ARGUMENT, error_pb2.ERROR_REASON_INVALID_FIELD, message, field)


def bad_output(message: str) -> BatchError:
    """Returns the error of a model whose output no tensor can hold."""
    return BatchError(Code.INTERNAL, error_pb2.ERROR_REASON_MODEL_PROTOCOL, message)


def to_message(error: BaseException) -> error_pb2.Error:
    """Returns the error as it travels; whatever is not a BatchError is the model's own failure."""
    if isinstance(error, BatchError):
        code, reason, field, text = error.code, error.reason, error.field, str(error)
    else:
        code, reason, field, text = Code.UNKNOWN, error_pb2.ERROR_REASON_MODEL_FAILED, "", describe(error)
    return error_pb2.Error(code=code, reason=reason, field=field, message=text[:MAX_MESSAGE])


def out_of_memory(error: BaseException) -> bool:
    """Says whether an error is one of too little memory, which may be gone at the next attempt."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM) or bool(NO_MEMORY.search(str(error)))


def describe(error: BaseException) -> str:
    """Returns what the error says, with its type where the words alone do not tell."""
    text = re.sub(r"\n{2,}", "\n", STACK.sub("", str(error))).strip()
    if isinstance(error, (RowError, ModelError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
