from clipper_proto.v1 import application_service_pb2 as _application_service_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribePolicyRequest(_message.Message):
    __slots__ = ("parameters",)
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class DescribePolicyResponse(_message.Message):
    __slots__ = ("statistics",)
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    statistics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, statistics: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyState(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[PolicyModel]
    def __init__(self, models: _Optional[_Iterable[_Union[PolicyModel, _Mapping]]] = ...) -> None: ...

class PolicyModel(_message.Message):
    __slots__ = ("model", "weight", "statistics")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    model: str
    weight: float
    statistics: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model: _Optional[str] = ..., weight: _Optional[float] = ..., statistics: _Optional[_Iterable[float]] = ...) -> None: ...

class PolicyChoice(_message.Message):
    __slots__ = ("model", "propensity")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    model: int
    propensity: float
    def __init__(self, model: _Optional[int] = ..., propensity: _Optional[float] = ...) -> None: ...

class SelectModelsRequest(_message.Message):
    __slots__ = ("parameters", "state", "features")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.ScalarMap[str, float]
    state: PolicyState
    features: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, parameters: _Optional[_Mapping[str, float]] = ..., state: _Optional[_Union[PolicyState, _Mapping]] = ..., features: _Optional[_Iterable[float]] = ...) -> None: ...

class SelectModelsResponse(_message.Message):
    __slots__ = ("choices",)
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.RepeatedCompositeFieldContainer[PolicyChoice]
    def __init__(self, choices: _Optional[_Iterable[_Union[PolicyChoice, _Mapping]]] = ...) -> None: ...

class CombinePredictionsRequest(_message.Message):
    __slots__ = ("parameters", "state", "output", "predictions")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.ScalarMap[str, float]
    state: PolicyState
    output: _application_service_pb2.OutputSpec
    predictions: _containers.RepeatedCompositeFieldContainer[PolicyPrediction]
    def __init__(self, parameters: _Optional[_Mapping[str, float]] = ..., state: _Optional[_Union[PolicyState, _Mapping]] = ..., output: _Optional[_Union[_application_service_pb2.OutputSpec, _Mapping]] = ..., predictions: _Optional[_Iterable[_Union[PolicyPrediction, _Mapping]]] = ...) -> None: ...

class PolicyPrediction(_message.Message):
    __slots__ = ("model", "prediction")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    model: int
    prediction: _struct_pb2.Value
    def __init__(self, model: _Optional[int] = ..., prediction: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class CombinePredictionsResponse(_message.Message):
    __slots__ = ("answer", "confidence")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    answer: _struct_pb2.Value
    confidence: float
    def __init__(self, answer: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., confidence: _Optional[float] = ...) -> None: ...

class ObserveFeedbackRequest(_message.Message):
    __slots__ = ("parameters", "state", "losses")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.ScalarMap[str, float]
    state: PolicyState
    losses: _containers.RepeatedCompositeFieldContainer[PolicyLoss]
    def __init__(self, parameters: _Optional[_Mapping[str, float]] = ..., state: _Optional[_Union[PolicyState, _Mapping]] = ..., losses: _Optional[_Iterable[_Union[PolicyLoss, _Mapping]]] = ...) -> None: ...

class PolicyLoss(_message.Message):
    __slots__ = ("choice", "loss")
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    choice: PolicyChoice
    loss: float
    def __init__(self, choice: _Optional[_Union[PolicyChoice, _Mapping]] = ..., loss: _Optional[float] = ...) -> None: ...

class ObserveFeedbackResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[PolicyDeltas]
    def __init__(self, models: _Optional[_Iterable[_Union[PolicyDeltas, _Mapping]]] = ...) -> None: ...

class PolicyDeltas(_message.Message):
    __slots__ = ("deltas",)
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    deltas: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, deltas: _Optional[_Iterable[float]] = ...) -> None: ...
