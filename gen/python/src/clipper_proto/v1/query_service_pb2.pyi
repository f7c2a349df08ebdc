from clipper_proto.v1 import error_pb2 as _error_pb2
from clipper_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DefaultReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEFAULT_REASON_UNSPECIFIED: _ClassVar[DefaultReason]
    DEFAULT_REASON_DEADLINE: _ClassVar[DefaultReason]
    DEFAULT_REASON_LOW_CONFIDENCE: _ClassVar[DefaultReason]
    DEFAULT_REASON_MODELS_FAILED: _ClassVar[DefaultReason]
    DEFAULT_REASON_NO_REPLICA: _ClassVar[DefaultReason]
    DEFAULT_REASON_OVERLOADED: _ClassVar[DefaultReason]
    DEFAULT_REASON_UNAVAILABLE: _ClassVar[DefaultReason]
    DEFAULT_REASON_POLICY_FAILED: _ClassVar[DefaultReason]

class PredictionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREDICTION_STATUS_UNSPECIFIED: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_OK: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_DEADLINE: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_FAILED: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_NO_REPLICA: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_OVERLOADED: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_NOT_FOUND: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_UNAVAILABLE: _ClassVar[PredictionStatus]
    PREDICTION_STATUS_PENDING: _ClassVar[PredictionStatus]
DEFAULT_REASON_UNSPECIFIED: DefaultReason
DEFAULT_REASON_DEADLINE: DefaultReason
DEFAULT_REASON_LOW_CONFIDENCE: DefaultReason
DEFAULT_REASON_MODELS_FAILED: DefaultReason
DEFAULT_REASON_NO_REPLICA: DefaultReason
DEFAULT_REASON_OVERLOADED: DefaultReason
DEFAULT_REASON_UNAVAILABLE: DefaultReason
DEFAULT_REASON_POLICY_FAILED: DefaultReason
PREDICTION_STATUS_UNSPECIFIED: PredictionStatus
PREDICTION_STATUS_OK: PredictionStatus
PREDICTION_STATUS_DEADLINE: PredictionStatus
PREDICTION_STATUS_FAILED: PredictionStatus
PREDICTION_STATUS_NO_REPLICA: PredictionStatus
PREDICTION_STATUS_OVERLOADED: PredictionStatus
PREDICTION_STATUS_NOT_FOUND: PredictionStatus
PREDICTION_STATUS_UNAVAILABLE: PredictionStatus
PREDICTION_STATUS_PENDING: PredictionStatus

class PredictModelRequest(_message.Message):
    __slots__ = ("model", "version", "rows", "timeout", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    rows: _containers.RepeatedCompositeFieldContainer[ModelRow]
    timeout: _duration_pb2.Duration
    priority: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[ModelRow, _Mapping]]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class ModelRow(_message.Message):
    __slots__ = ("inputs",)
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    def __init__(self, inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ...) -> None: ...

class PredictModelResponse(_message.Message):
    __slots__ = ("predictions",)
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[ModelPrediction]
    def __init__(self, predictions: _Optional[_Iterable[_Union[ModelPrediction, _Mapping]]] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("application", "inputs", "input_json", "context", "timeout", "id", "priority")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    application: str
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    input_json: bytes
    context: str
    timeout: _duration_pb2.Duration
    id: str
    priority: int
    def __init__(self, application: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., input_json: _Optional[bytes] = ..., context: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("outputs", "is_default", "default_reason", "confidence", "predictions", "feedback_id", "id")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REASON_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    is_default: bool
    default_reason: DefaultReason
    confidence: float
    predictions: _containers.RepeatedCompositeFieldContainer[ModelPrediction]
    feedback_id: str
    id: str
    def __init__(self, outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., is_default: bool = ..., default_reason: _Optional[_Union[DefaultReason, str]] = ..., confidence: _Optional[float] = ..., predictions: _Optional[_Iterable[_Union[ModelPrediction, _Mapping]]] = ..., feedback_id: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class ModelPrediction(_message.Message):
    __slots__ = ("model", "version", "status", "outputs", "message", "cached", "propensity", "shadow", "retry_after")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    status: PredictionStatus
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    message: str
    cached: bool
    propensity: float
    shadow: bool
    retry_after: _duration_pb2.Duration
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., status: _Optional[_Union[PredictionStatus, str]] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., message: _Optional[str] = ..., cached: bool = ..., propensity: _Optional[float] = ..., shadow: bool = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QueryBatchRequest(_message.Message):
    __slots__ = ("application", "queries", "timeout")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    application: str
    queries: _containers.RepeatedCompositeFieldContainer[BatchQuery]
    timeout: _duration_pb2.Duration
    def __init__(self, application: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[BatchQuery, _Mapping]]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BatchQuery(_message.Message):
    __slots__ = ("inputs", "input_json", "context", "id", "priority")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    input_json: bytes
    context: str
    id: str
    priority: int
    def __init__(self, inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., input_json: _Optional[bytes] = ..., context: _Optional[str] = ..., id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class QueryBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResult]
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResult, _Mapping]]] = ...) -> None: ...

class QueryResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: QueryResponse
    error: _error_pb2.Error
    def __init__(self, response: _Optional[_Union[QueryResponse, _Mapping]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class QueryStreamRequest(_message.Message):
    __slots__ = ("sequence", "query")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    query: QueryRequest
    def __init__(self, sequence: _Optional[int] = ..., query: _Optional[_Union[QueryRequest, _Mapping]] = ...) -> None: ...

class QueryStreamResponse(_message.Message):
    __slots__ = ("sequence", "result")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    result: QueryResult
    def __init__(self, sequence: _Optional[int] = ..., result: _Optional[_Union[QueryResult, _Mapping]] = ...) -> None: ...
