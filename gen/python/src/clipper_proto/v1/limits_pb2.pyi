from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("queries_per_second", "burst", "concurrency")
    QUERIES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    queries_per_second: float
    burst: int
    concurrency: int
    def __init__(self, queries_per_second: _Optional[float] = ..., burst: _Optional[int] = ..., concurrency: _Optional[int] = ...) -> None: ...
