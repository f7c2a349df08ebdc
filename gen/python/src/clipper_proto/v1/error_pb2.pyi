from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_MALFORMED_JSON: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_FIELD: _ClassVar[ErrorReason]
    ERROR_REASON_MISSING_FIELD: _ClassVar[ErrorReason]
    ERROR_REASON_INPUT_TYPE: _ClassVar[ErrorReason]
    ERROR_REASON_INPUT_SHAPE: _ClassVar[ErrorReason]
    ERROR_REASON_INPUT_VALUE: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_APPLICATION_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_APPLICATION_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_IN_USE: _ClassVar[ErrorReason]
    ERROR_REASON_SIGNATURE_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_POLICY_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_FEEDBACK_ID_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_FEEDBACK_ID_EXPIRED: _ClassVar[ErrorReason]
    ERROR_REASON_FEEDBACK_ID_APPLICATION: _ClassVar[ErrorReason]
    ERROR_REASON_TRUTH_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_STORE_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_PROTOCOL: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_METHOD: _ClassVar[ErrorReason]
    ERROR_REASON_CONTEXT_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_LAUNCH_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_POLICY_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_NO_CANARY: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_RATE_LIMITED: _ClassVar[ErrorReason]
    ERROR_REASON_KEY_NOT_FOUND: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_MALFORMED_JSON: ErrorReason
ERROR_REASON_INVALID_FIELD: ErrorReason
ERROR_REASON_MISSING_FIELD: ErrorReason
ERROR_REASON_INPUT_TYPE: ErrorReason
ERROR_REASON_INPUT_SHAPE: ErrorReason
ERROR_REASON_INPUT_VALUE: ErrorReason
ERROR_REASON_TOO_LARGE: ErrorReason
ERROR_REASON_APPLICATION_NOT_FOUND: ErrorReason
ERROR_REASON_APPLICATION_EXISTS: ErrorReason
ERROR_REASON_MODEL_NOT_FOUND: ErrorReason
ERROR_REASON_VERSION_NOT_FOUND: ErrorReason
ERROR_REASON_VERSION_EXISTS: ErrorReason
ERROR_REASON_IN_USE: ErrorReason
ERROR_REASON_SIGNATURE_MISMATCH: ErrorReason
ERROR_REASON_POLICY_INVALID: ErrorReason
ERROR_REASON_CONFLICT: ErrorReason
ERROR_REASON_FEEDBACK_ID_INVALID: ErrorReason
ERROR_REASON_FEEDBACK_ID_EXPIRED: ErrorReason
ERROR_REASON_FEEDBACK_ID_APPLICATION: ErrorReason
ERROR_REASON_TRUTH_INVALID: ErrorReason
ERROR_REASON_DEADLINE: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_UNAVAILABLE: ErrorReason
ERROR_REASON_STORE_UNAVAILABLE: ErrorReason
ERROR_REASON_MODEL_FAILED: ErrorReason
ERROR_REASON_MODEL_PROTOCOL: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_UNKNOWN_METHOD: ErrorReason
ERROR_REASON_CONTEXT_NOT_FOUND: ErrorReason
ERROR_REASON_LAUNCH_FAILED: ErrorReason
ERROR_REASON_POLICY_FAILED: ErrorReason
ERROR_REASON_NO_CANARY: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
ERROR_REASON_RATE_LIMITED: ErrorReason
ERROR_REASON_KEY_NOT_FOUND: ErrorReason

class Error(_message.Message):
    __slots__ = ("code", "message", "reason", "field", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: ErrorReason
    field: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[_Union[ErrorReason, str]] = ..., field: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
