from clipper_proto.v1 import error_pb2 as _error_pb2
from clipper_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeedbackRequest(_message.Message):
    __slots__ = ("application", "feedback_id", "inputs", "input_json", "context", "truth", "reward", "id")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    application: str
    feedback_id: str
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    input_json: bytes
    context: str
    truth: _struct_pb2.Value
    reward: float
    id: str
    def __init__(self, application: _Optional[str] = ..., feedback_id: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., input_json: _Optional[bytes] = ..., context: _Optional[str] = ..., truth: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., reward: _Optional[float] = ..., id: _Optional[str] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("duplicate", "losses", "buffered")
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    BUFFERED_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    losses: _containers.RepeatedCompositeFieldContainer[ModelLoss]
    buffered: bool
    def __init__(self, duplicate: bool = ..., losses: _Optional[_Iterable[_Union[ModelLoss, _Mapping]]] = ..., buffered: bool = ...) -> None: ...

class ModelLoss(_message.Message):
    __slots__ = ("model", "loss")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    model: str
    loss: float
    def __init__(self, model: _Optional[str] = ..., loss: _Optional[float] = ...) -> None: ...

class FeedbackBatchRequest(_message.Message):
    __slots__ = ("application", "items")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    application: str
    items: _containers.RepeatedCompositeFieldContainer[FeedbackRequest]
    def __init__(self, application: _Optional[str] = ..., items: _Optional[_Iterable[_Union[FeedbackRequest, _Mapping]]] = ...) -> None: ...

class FeedbackBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[FeedbackResult]
    def __init__(self, results: _Optional[_Iterable[_Union[FeedbackResult, _Mapping]]] = ...) -> None: ...

class FeedbackResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: FeedbackResponse
    error: _error_pb2.Error
    def __init__(self, response: _Optional[_Union[FeedbackResponse, _Mapping]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class FeedbackStreamRequest(_message.Message):
    __slots__ = ("sequence", "feedback")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    feedback: FeedbackRequest
    def __init__(self, sequence: _Optional[int] = ..., feedback: _Optional[_Union[FeedbackRequest, _Mapping]] = ...) -> None: ...

class FeedbackStreamResponse(_message.Message):
    __slots__ = ("sequence", "result")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    result: FeedbackResult
    def __init__(self, sequence: _Optional[int] = ..., result: _Optional[_Union[FeedbackResult, _Mapping]] = ...) -> None: ...
