from clipper_proto.v1 import feedback_service_pb2 as _feedback_service_pb2
from clipper_proto.v1 import limits_pb2 as _limits_pb2
from clipper_proto.v1 import query_service_pb2 as _query_service_pb2
from clipper_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecisionLogFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_LOG_FORMAT_UNSPECIFIED: _ClassVar[DecisionLogFormat]
    DECISION_LOG_FORMAT_JSON_LINES: _ClassVar[DecisionLogFormat]
    DECISION_LOG_FORMAT_PARQUET: _ClassVar[DecisionLogFormat]

class Loss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_UNSPECIFIED: _ClassVar[Loss]
    LOSS_ZERO_ONE: _ClassVar[Loss]
    LOSS_ABSOLUTE: _ClassVar[Loss]
    LOSS_LOG: _ClassVar[Loss]

class OutputKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_KIND_UNSPECIFIED: _ClassVar[OutputKind]
    OUTPUT_KIND_LABEL: _ClassVar[OutputKind]
    OUTPUT_KIND_NUMBER: _ClassVar[OutputKind]
    OUTPUT_KIND_SCORES: _ClassVar[OutputKind]

class CanaryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANARY_STATE_UNSPECIFIED: _ClassVar[CanaryState]
    CANARY_STATE_RUNNING: _ClassVar[CanaryState]
    CANARY_STATE_PROMOTED: _ClassVar[CanaryState]
    CANARY_STATE_ROLLED_BACK: _ClassVar[CanaryState]
DECISION_LOG_FORMAT_UNSPECIFIED: DecisionLogFormat
DECISION_LOG_FORMAT_JSON_LINES: DecisionLogFormat
DECISION_LOG_FORMAT_PARQUET: DecisionLogFormat
LOSS_UNSPECIFIED: Loss
LOSS_ZERO_ONE: Loss
LOSS_ABSOLUTE: Loss
LOSS_LOG: Loss
OUTPUT_KIND_UNSPECIFIED: OutputKind
OUTPUT_KIND_LABEL: OutputKind
OUTPUT_KIND_NUMBER: OutputKind
OUTPUT_KIND_SCORES: OutputKind
CANARY_STATE_UNSPECIFIED: CanaryState
CANARY_STATE_RUNNING: CanaryState
CANARY_STATE_PROMOTED: CanaryState
CANARY_STATE_ROLLED_BACK: CanaryState

class Application(_message.Message):
    __slots__ = ("name", "description", "inputs", "output", "latency_objective", "default_output", "policy", "models", "confidence_threshold", "feedback_lifetime", "prior_weight", "create_time", "update_time", "etag", "refuse_overload", "answer_early", "context_lifetime", "decision_log", "canary", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    PRIOR_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REFUSE_OVERLOAD_FIELD_NUMBER: _ClassVar[int]
    ANSWER_EARLY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_LOG_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    output: OutputSpec
    latency_objective: _duration_pb2.Duration
    default_output: _struct_pb2.Value
    policy: Policy
    models: _containers.RepeatedCompositeFieldContainer[ApplicationModel]
    confidence_threshold: float
    feedback_lifetime: _duration_pb2.Duration
    prior_weight: float
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    refuse_overload: bool
    answer_early: bool
    context_lifetime: _duration_pb2.Duration
    decision_log: DecisionLog
    canary: Canary
    limits: _limits_pb2.Limits
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., output: _Optional[_Union[OutputSpec, _Mapping]] = ..., latency_objective: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., default_output: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ApplicationModel, _Mapping]]] = ..., confidence_threshold: _Optional[float] = ..., feedback_lifetime: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., prior_weight: _Optional[float] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., refuse_overload: bool = ..., answer_early: bool = ..., context_lifetime: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., decision_log: _Optional[_Union[DecisionLog, _Mapping]] = ..., canary: _Optional[_Union[Canary, _Mapping]] = ..., limits: _Optional[_Union[_limits_pb2.Limits, _Mapping]] = ...) -> None: ...

class DecisionLog(_message.Message):
    __slots__ = ("sample_rate", "format")
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    sample_rate: float
    format: DecisionLogFormat
    def __init__(self, sample_rate: _Optional[float] = ..., format: _Optional[_Union[DecisionLogFormat, str]] = ...) -> None: ...

class Canary(_message.Message):
    __slots__ = ("model", "baseline", "initial_share", "final_share", "step", "min_feedbacks", "loss_margin", "error_margin", "latency_margin", "confidence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_SHARE_FIELD_NUMBER: _ClassVar[int]
    FINAL_SHARE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MIN_FEEDBACKS_FIELD_NUMBER: _ClassVar[int]
    LOSS_MARGIN_FIELD_NUMBER: _ClassVar[int]
    ERROR_MARGIN_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MARGIN_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    baseline: str
    initial_share: float
    final_share: float
    step: float
    min_feedbacks: int
    loss_margin: float
    error_margin: float
    latency_margin: float
    confidence: float
    def __init__(self, model: _Optional[str] = ..., baseline: _Optional[str] = ..., initial_share: _Optional[float] = ..., final_share: _Optional[float] = ..., step: _Optional[float] = ..., min_feedbacks: _Optional[int] = ..., loss_margin: _Optional[float] = ..., error_margin: _Optional[float] = ..., latency_margin: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class OutputSpec(_message.Message):
    __slots__ = ("kind", "data_type", "range", "classes", "loss")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    kind: OutputKind
    data_type: _tensor_pb2.DataType
    range: NumberRange
    classes: _containers.RepeatedScalarFieldContainer[str]
    loss: Loss
    def __init__(self, kind: _Optional[_Union[OutputKind, str]] = ..., data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., range: _Optional[_Union[NumberRange, _Mapping]] = ..., classes: _Optional[_Iterable[str]] = ..., loss: _Optional[_Union[Loss, str]] = ...) -> None: ...

class NumberRange(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "parameters", "address", "statistics")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    parameters: _containers.ScalarMap[str, float]
    address: str
    statistics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ..., address: _Optional[str] = ..., statistics: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplicationModel(_message.Message):
    __slots__ = ("model", "version", "weight", "group", "shadow")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    weight: float
    group: str
    shadow: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., weight: _Optional[float] = ..., group: _Optional[str] = ..., shadow: bool = ...) -> None: ...

class CreateApplicationRequest(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: Application
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ...) -> None: ...

class CreateApplicationResponse(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: Application
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ...) -> None: ...

class GetApplicationRequest(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: str
    def __init__(self, application: _Optional[str] = ...) -> None: ...

class GetApplicationResponse(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: Application
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ...) -> None: ...

class ListApplicationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "prefix")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ListApplicationsResponse(_message.Message):
    __slots__ = ("applications", "next_page_token")
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    applications: _containers.RepeatedCompositeFieldContainer[Application]
    next_page_token: str
    def __init__(self, applications: _Optional[_Iterable[_Union[Application, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateApplicationRequest(_message.Message):
    __slots__ = ("application", "update_mask", "reset_state")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    RESET_STATE_FIELD_NUMBER: _ClassVar[int]
    application: Application
    update_mask: _field_mask_pb2.FieldMask
    reset_state: bool
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., reset_state: bool = ...) -> None: ...

class UpdateApplicationResponse(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: Application
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ...) -> None: ...

class DeleteApplicationRequest(_message.Message):
    __slots__ = ("application", "etag")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    application: str
    etag: str
    def __init__(self, application: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteApplicationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSelectionStateRequest(_message.Message):
    __slots__ = ("application", "context")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    application: str
    context: str
    def __init__(self, application: _Optional[str] = ..., context: _Optional[str] = ...) -> None: ...

class GetSelectionStateResponse(_message.Message):
    __slots__ = ("policy", "observations", "models")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    policy: str
    observations: float
    models: _containers.RepeatedCompositeFieldContainer[ModelSelectionState]
    def __init__(self, policy: _Optional[str] = ..., observations: _Optional[float] = ..., models: _Optional[_Iterable[_Union[ModelSelectionState, _Mapping]]] = ...) -> None: ...

class ModelSelectionState(_message.Message):
    __slots__ = ("model", "weight", "probability", "statistics")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    model: str
    weight: float
    probability: float
    statistics: _containers.ScalarMap[str, float]
    def __init__(self, model: _Optional[str] = ..., weight: _Optional[float] = ..., probability: _Optional[float] = ..., statistics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ExplainSelectionRequest(_message.Message):
    __slots__ = ("application", "context", "decisions")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    application: str
    context: str
    decisions: int
    def __init__(self, application: _Optional[str] = ..., context: _Optional[str] = ..., decisions: _Optional[int] = ...) -> None: ...

class ExplainSelectionResponse(_message.Message):
    __slots__ = ("state", "decisions")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    state: GetSelectionStateResponse
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, state: _Optional[_Union[GetSelectionStateResponse, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("id", "time", "application", "context", "policy", "models", "output", "default_reason", "confidence", "latency", "features", "feedback")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REASON_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    id: str
    time: _timestamp_pb2.Timestamp
    application: str
    context: str
    policy: str
    models: _containers.RepeatedCompositeFieldContainer[DecisionModel]
    output: _struct_pb2.Value
    default_reason: _query_service_pb2.DefaultReason
    confidence: float
    latency: _duration_pb2.Duration
    features: _containers.RepeatedScalarFieldContainer[float]
    feedback: DecisionFeedback
    def __init__(self, id: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., application: _Optional[str] = ..., context: _Optional[str] = ..., policy: _Optional[str] = ..., models: _Optional[_Iterable[_Union[DecisionModel, _Mapping]]] = ..., output: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., default_reason: _Optional[_Union[_query_service_pb2.DefaultReason, str]] = ..., confidence: _Optional[float] = ..., latency: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., features: _Optional[_Iterable[float]] = ..., feedback: _Optional[_Union[DecisionFeedback, _Mapping]] = ...) -> None: ...

class DecisionModel(_message.Message):
    __slots__ = ("model", "version", "propensity", "weight", "shadow", "status", "prediction")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    propensity: float
    weight: float
    shadow: bool
    status: _query_service_pb2.PredictionStatus
    prediction: _struct_pb2.Value
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., propensity: _Optional[float] = ..., weight: _Optional[float] = ..., shadow: bool = ..., status: _Optional[_Union[_query_service_pb2.PredictionStatus, str]] = ..., prediction: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class DecisionFeedback(_message.Message):
    __slots__ = ("time", "truth", "reward", "losses")
    TIME_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    truth: _struct_pb2.Value
    reward: float
    losses: _containers.RepeatedCompositeFieldContainer[_feedback_service_pb2.ModelLoss]
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., truth: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., reward: _Optional[float] = ..., losses: _Optional[_Iterable[_Union[_feedback_service_pb2.ModelLoss, _Mapping]]] = ...) -> None: ...

class ListContextsRequest(_message.Message):
    __slots__ = ("application", "page_size", "page_token", "prefix")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    application: str
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, application: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ListContextsResponse(_message.Message):
    __slots__ = ("contexts", "next_page_token")
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    contexts: _containers.RepeatedCompositeFieldContainer[ContextSummary]
    next_page_token: str
    def __init__(self, contexts: _Optional[_Iterable[_Union[ContextSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ContextSummary(_message.Message):
    __slots__ = ("context", "observations", "expire_time")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    context: str
    observations: float
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, context: _Optional[str] = ..., observations: _Optional[float] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExportSelectionStateRequest(_message.Message):
    __slots__ = ("application", "context")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    application: str
    context: str
    def __init__(self, application: _Optional[str] = ..., context: _Optional[str] = ...) -> None: ...

class ExportSelectionStateResponse(_message.Message):
    __slots__ = ("context", "state")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    context: str
    state: GetSelectionStateResponse
    def __init__(self, context: _Optional[str] = ..., state: _Optional[_Union[GetSelectionStateResponse, _Mapping]] = ...) -> None: ...

class ResetSelectionStateRequest(_message.Message):
    __slots__ = ("application", "context")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    application: str
    context: str
    def __init__(self, application: _Optional[str] = ..., context: _Optional[str] = ...) -> None: ...

class ResetSelectionStateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelCorrelationsRequest(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: str
    def __init__(self, application: _Optional[str] = ...) -> None: ...

class GetModelCorrelationsResponse(_message.Message):
    __slots__ = ("pairs", "suggested_groups")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    SUGGESTED_GROUPS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[ModelPair]
    suggested_groups: _containers.RepeatedCompositeFieldContainer[SuggestedGroup]
    def __init__(self, pairs: _Optional[_Iterable[_Union[ModelPair, _Mapping]]] = ..., suggested_groups: _Optional[_Iterable[_Union[SuggestedGroup, _Mapping]]] = ...) -> None: ...

class ModelPair(_message.Message):
    __slots__ = ("first", "second", "observations", "correlation", "correlation_lower", "first_loss", "second_loss")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_LOWER_FIELD_NUMBER: _ClassVar[int]
    FIRST_LOSS_FIELD_NUMBER: _ClassVar[int]
    SECOND_LOSS_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    observations: float
    correlation: float
    correlation_lower: float
    first_loss: float
    second_loss: float
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ..., observations: _Optional[float] = ..., correlation: _Optional[float] = ..., correlation_lower: _Optional[float] = ..., first_loss: _Optional[float] = ..., second_loss: _Optional[float] = ...) -> None: ...

class SuggestedGroup(_message.Message):
    __slots__ = ("models", "correlation")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    correlation: float
    def __init__(self, models: _Optional[_Iterable[str]] = ..., correlation: _Optional[float] = ...) -> None: ...

class GetCanaryRequest(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: str
    def __init__(self, application: _Optional[str] = ...) -> None: ...

class GetCanaryResponse(_message.Message):
    __slots__ = ("state", "share", "tests", "steps")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    state: CanaryState
    share: float
    tests: _containers.RepeatedCompositeFieldContainer[CanaryTest]
    steps: _containers.RepeatedCompositeFieldContainer[CanaryStep]
    def __init__(self, state: _Optional[_Union[CanaryState, str]] = ..., share: _Optional[float] = ..., tests: _Optional[_Iterable[_Union[CanaryTest, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[CanaryStep, _Mapping]]] = ...) -> None: ...

class CanaryTest(_message.Message):
    __slots__ = ("metric", "canary", "baseline", "canary_count", "baseline_count", "lower", "upper", "margin")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    CANARY_COUNT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    metric: str
    canary: float
    baseline: float
    canary_count: float
    baseline_count: float
    lower: float
    upper: float
    margin: float
    def __init__(self, metric: _Optional[str] = ..., canary: _Optional[float] = ..., baseline: _Optional[float] = ..., canary_count: _Optional[float] = ..., baseline_count: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ..., margin: _Optional[float] = ...) -> None: ...

class CanaryStep(_message.Message):
    __slots__ = ("time", "to", "reason", "tests")
    TIME_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    to: float
    reason: str
    tests: _containers.RepeatedCompositeFieldContainer[CanaryTest]
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., to: _Optional[float] = ..., reason: _Optional[str] = ..., tests: _Optional[_Iterable[_Union[CanaryTest, _Mapping]]] = ..., **kwargs) -> None: ...
