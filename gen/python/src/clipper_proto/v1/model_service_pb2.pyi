from clipper_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_STARTING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_DEGRADED: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]
    MODEL_STATE_STOPPED: _ClassVar[ModelState]
    MODEL_STATE_DELETING: _ClassVar[ModelState]

class ReplicaState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_STATE_UNSPECIFIED: _ClassVar[ReplicaState]
    REPLICA_STATE_STARTING: _ClassVar[ReplicaState]
    REPLICA_STATE_READY: _ClassVar[ReplicaState]
    REPLICA_STATE_DRAINING: _ClassVar[ReplicaState]
    REPLICA_STATE_FAILED: _ClassVar[ReplicaState]

class RepositoryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPOSITORY_STATE_UNSPECIFIED: _ClassVar[RepositoryState]
    REPOSITORY_STATE_DEPLOYED: _ClassVar[RepositoryState]
    REPOSITORY_STATE_WAITING: _ClassVar[RepositoryState]
    REPOSITORY_STATE_SKIPPED: _ClassVar[RepositoryState]
    REPOSITORY_STATE_FAILED: _ClassVar[RepositoryState]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_STARTING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_DEGRADED: ModelState
MODEL_STATE_FAILED: ModelState
MODEL_STATE_STOPPED: ModelState
MODEL_STATE_DELETING: ModelState
REPLICA_STATE_UNSPECIFIED: ReplicaState
REPLICA_STATE_STARTING: ReplicaState
REPLICA_STATE_READY: ReplicaState
REPLICA_STATE_DRAINING: ReplicaState
REPLICA_STATE_FAILED: ReplicaState
REPOSITORY_STATE_UNSPECIFIED: RepositoryState
REPOSITORY_STATE_DEPLOYED: RepositoryState
REPOSITORY_STATE_WAITING: RepositoryState
REPOSITORY_STATE_SKIPPED: RepositoryState
REPOSITORY_STATE_FAILED: RepositoryState

class Model(_message.Message):
    __slots__ = ("name", "current_version", "versions", "keep_versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CURRENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    KEEP_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    current_version: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    keep_versions: int
    def __init__(self, name: _Optional[str] = ..., current_version: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., keep_versions: _Optional[int] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("model", "version", "signature", "container", "replicas", "batching", "cache", "labels", "current", "state", "state_message", "replica_status", "create_time", "warm_up", "homes", "autoscaling", "etag")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_FIELD_NUMBER: _ClassVar[int]
    HOMES_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    signature: _tensor_pb2.Signature
    container: Container
    replicas: int
    batching: Batching
    cache: Cache
    labels: _containers.ScalarMap[str, str]
    current: bool
    state: ModelState
    state_message: str
    replica_status: _containers.RepeatedCompositeFieldContainer[Replica]
    create_time: _timestamp_pb2.Timestamp
    warm_up: WarmUp
    homes: int
    autoscaling: Autoscaling
    etag: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., signature: _Optional[_Union[_tensor_pb2.Signature, _Mapping]] = ..., container: _Optional[_Union[Container, _Mapping]] = ..., replicas: _Optional[int] = ..., batching: _Optional[_Union[Batching, _Mapping]] = ..., cache: _Optional[_Union[Cache, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., current: bool = ..., state: _Optional[_Union[ModelState, str]] = ..., state_message: _Optional[str] = ..., replica_status: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., warm_up: _Optional[_Union[WarmUp, _Mapping]] = ..., homes: _Optional[int] = ..., autoscaling: _Optional[_Union[Autoscaling, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class Autoscaling(_message.Message):
    __slots__ = ("min_replicas", "max_replicas", "target_load", "scale_down_delay", "idle_timeout")
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_LOAD_FIELD_NUMBER: _ClassVar[int]
    SCALE_DOWN_DELAY_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    min_replicas: int
    max_replicas: int
    target_load: float
    scale_down_delay: _duration_pb2.Duration
    idle_timeout: _duration_pb2.Duration
    def __init__(self, min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., target_load: _Optional[float] = ..., scale_down_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., idle_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WarmUp(_message.Message):
    __slots__ = ("samples", "time_limit", "disabled")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[WarmUpSample]
    time_limit: _duration_pb2.Duration
    disabled: bool
    def __init__(self, samples: _Optional[_Iterable[_Union[WarmUpSample, _Mapping]]] = ..., time_limit: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., disabled: bool = ...) -> None: ...

class WarmUpSample(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ...) -> None: ...

class Container(_message.Message):
    __slots__ = ("adapter", "command", "address", "image", "registered", "environment", "start_timeout", "resources")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    adapter: Adapter
    command: Command
    address: Address
    image: Image
    registered: Registered
    environment: _containers.ScalarMap[str, str]
    start_timeout: _duration_pb2.Duration
    resources: Resources
    def __init__(self, adapter: _Optional[_Union[Adapter, _Mapping]] = ..., command: _Optional[_Union[Command, _Mapping]] = ..., address: _Optional[_Union[Address, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., registered: _Optional[_Union[Registered, _Mapping]] = ..., environment: _Optional[_Mapping[str, str]] = ..., start_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpus", "memory_bytes", "gpus")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    memory_bytes: int
    gpus: int
    def __init__(self, cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., gpus: _Optional[int] = ...) -> None: ...

class Adapter(_message.Message):
    __slots__ = ("framework", "model_path")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    framework: str
    model_path: str
    def __init__(self, framework: _Optional[str] = ..., model_path: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("arguments", "directory")
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    arguments: _containers.RepeatedScalarFieldContainer[str]
    directory: str
    def __init__(self, arguments: _Optional[_Iterable[str]] = ..., directory: _Optional[str] = ...) -> None: ...

class Address(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    def __init__(self, reference: _Optional[str] = ...) -> None: ...

class Registered(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Batching(_message.Message):
    __slots__ = ("policy", "max_batch_rows", "latency_objective", "max_in_flight", "max_queue_rows", "max_delay", "auto_delay")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_FIELD_NUMBER: _ClassVar[int]
    AUTO_DELAY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    max_batch_rows: int
    latency_objective: _duration_pb2.Duration
    max_in_flight: int
    max_queue_rows: int
    max_delay: _duration_pb2.Duration
    auto_delay: bool
    def __init__(self, policy: _Optional[str] = ..., max_batch_rows: _Optional[int] = ..., latency_objective: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., max_queue_rows: _Optional[int] = ..., max_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., auto_delay: bool = ...) -> None: ...

class Cache(_message.Message):
    __slots__ = ("disabled",)
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    disabled: bool
    def __init__(self, disabled: bool = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("id", "state", "address", "message", "restarts", "state_time", "instance", "registered")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: ReplicaState
    address: str
    message: str
    restarts: int
    state_time: _timestamp_pb2.Timestamp
    instance: str
    registered: bool
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[ReplicaState, str]] = ..., address: _Optional[str] = ..., message: _Optional[str] = ..., restarts: _Optional[int] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., instance: _Optional[str] = ..., registered: bool = ...) -> None: ...

class DeployModelRequest(_message.Message):
    __slots__ = ("version", "keep_current", "keep_versions")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEEP_CURRENT_FIELD_NUMBER: _ClassVar[int]
    KEEP_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    keep_current: bool
    keep_versions: int
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ..., keep_current: bool = ..., keep_versions: _Optional[int] = ...) -> None: ...

class DeployModelResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "prefix")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelVersionRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class UpdateModelVersionRequest(_message.Message):
    __slots__ = ("model", "version", "replicas", "batching", "cache", "homes", "autoscaling", "etag")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    HOMES_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    replicas: int
    batching: Batching
    cache: Cache
    homes: int
    autoscaling: Autoscaling
    etag: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., replicas: _Optional[int] = ..., batching: _Optional[_Union[Batching, _Mapping]] = ..., cache: _Optional[_Union[Cache, _Mapping]] = ..., homes: _Optional[int] = ..., autoscaling: _Optional[_Union[Autoscaling, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class UpdateModelVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class SetCurrentVersionRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SetCurrentVersionResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class DeleteModelVersionRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class DeleteModelVersionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBatchingRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetBatchingResponse(_message.Message):
    __slots__ = ("model", "version", "batching", "queue", "replicas", "scaling", "counters")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    batching: Batching
    queue: QueueStatus
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaBatching]
    scaling: ScalingStatus
    counters: ModelCounters
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., batching: _Optional[_Union[Batching, _Mapping]] = ..., queue: _Optional[_Union[QueueStatus, _Mapping]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaBatching, _Mapping]]] = ..., scaling: _Optional[_Union[ScalingStatus, _Mapping]] = ..., counters: _Optional[_Union[ModelCounters, _Mapping]] = ...) -> None: ...

class ModelCounters(_message.Message):
    __slots__ = ("batches", "rows", "batch_time", "queued_rows", "queue_time", "cache_hits", "cache_misses")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCH_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUED_ROWS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISSES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    rows: int
    batch_time: _duration_pb2.Duration
    queued_rows: int
    queue_time: _duration_pb2.Duration
    cache_hits: int
    cache_misses: int
    def __init__(self, batches: _Optional[int] = ..., rows: _Optional[int] = ..., batch_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., queued_rows: _Optional[int] = ..., queue_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., cache_hits: _Optional[int] = ..., cache_misses: _Optional[int] = ...) -> None: ...

class ScalingStatus(_message.Message):
    __slots__ = ("autoscaling", "replicas", "needed_replicas", "ready_replicas", "arrival_rate", "burstiness", "time_budget", "batch_rows", "replica_rate", "load_ratio", "why", "held", "start_time", "changes")
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_RATE_FIELD_NUMBER: _ClassVar[int]
    BURSTINESS_FIELD_NUMBER: _ClassVar[int]
    TIME_BUDGET_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_RATE_FIELD_NUMBER: _ClassVar[int]
    LOAD_RATIO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    autoscaling: Autoscaling
    replicas: int
    needed_replicas: int
    ready_replicas: int
    arrival_rate: float
    burstiness: float
    time_budget: _duration_pb2.Duration
    batch_rows: int
    replica_rate: float
    load_ratio: float
    why: str
    held: str
    start_time: _duration_pb2.Duration
    changes: _containers.RepeatedCompositeFieldContainer[ScalingChange]
    def __init__(self, autoscaling: _Optional[_Union[Autoscaling, _Mapping]] = ..., replicas: _Optional[int] = ..., needed_replicas: _Optional[int] = ..., ready_replicas: _Optional[int] = ..., arrival_rate: _Optional[float] = ..., burstiness: _Optional[float] = ..., time_budget: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., batch_rows: _Optional[int] = ..., replica_rate: _Optional[float] = ..., load_ratio: _Optional[float] = ..., why: _Optional[str] = ..., held: _Optional[str] = ..., start_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[ScalingChange, _Mapping]]] = ...) -> None: ...

class ScalingChange(_message.Message):
    __slots__ = ("time", "to", "why")
    TIME_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    to: int
    why: str
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., to: _Optional[int] = ..., why: _Optional[str] = ..., **kwargs) -> None: ...

class QueueStatus(_message.Message):
    __slots__ = ("rows", "in_flight_rows", "delay", "drain_rate", "overloaded", "dropped")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_ROWS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    DRAIN_RATE_FIELD_NUMBER: _ClassVar[int]
    OVERLOADED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    rows: int
    in_flight_rows: int
    delay: _duration_pb2.Duration
    drain_rate: float
    overloaded: bool
    dropped: _containers.ScalarMap[str, int]
    def __init__(self, rows: _Optional[int] = ..., in_flight_rows: _Optional[int] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., drain_rate: _Optional[float] = ..., overloaded: bool = ..., dropped: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ReplicaBatching(_message.Message):
    __slots__ = ("replica", "fixed_micros", "row_micros", "tail_micros", "hop_micros", "observations", "largest_rows", "target_rows", "in_flight_batches", "in_flight_rows", "latencies", "decisions", "instance")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    FIXED_MICROS_FIELD_NUMBER: _ClassVar[int]
    ROW_MICROS_FIELD_NUMBER: _ClassVar[int]
    TAIL_MICROS_FIELD_NUMBER: _ClassVar[int]
    HOP_MICROS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_ROWS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ROWS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_BATCHES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_ROWS_FIELD_NUMBER: _ClassVar[int]
    LATENCIES_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    replica: str
    fixed_micros: float
    row_micros: float
    tail_micros: float
    hop_micros: float
    observations: int
    largest_rows: int
    target_rows: int
    in_flight_batches: int
    in_flight_rows: int
    latencies: _containers.RepeatedCompositeFieldContainer[LatencyPoint]
    decisions: _containers.RepeatedCompositeFieldContainer[BatchDecision]
    instance: str
    def __init__(self, replica: _Optional[str] = ..., fixed_micros: _Optional[float] = ..., row_micros: _Optional[float] = ..., tail_micros: _Optional[float] = ..., hop_micros: _Optional[float] = ..., observations: _Optional[int] = ..., largest_rows: _Optional[int] = ..., target_rows: _Optional[int] = ..., in_flight_batches: _Optional[int] = ..., in_flight_rows: _Optional[int] = ..., latencies: _Optional[_Iterable[_Union[LatencyPoint, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[BatchDecision, _Mapping]]] = ..., instance: _Optional[str] = ...) -> None: ...

class LatencyPoint(_message.Message):
    __slots__ = ("rows", "observations", "observed_micros", "expected_micros", "tail_micros")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_MICROS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MICROS_FIELD_NUMBER: _ClassVar[int]
    TAIL_MICROS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    observations: float
    observed_micros: float
    expected_micros: float
    tail_micros: float
    def __init__(self, rows: _Optional[int] = ..., observations: _Optional[float] = ..., observed_micros: _Optional[float] = ..., expected_micros: _Optional[float] = ..., tail_micros: _Optional[float] = ...) -> None: ...

class BatchDecision(_message.Message):
    __slots__ = ("time", "rows", "waiting", "slack", "expected_micros", "shed", "ahead", "why")
    TIME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    SLACK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MICROS_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    rows: int
    waiting: int
    slack: _duration_pb2.Duration
    expected_micros: float
    shed: int
    ahead: bool
    why: str
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., rows: _Optional[int] = ..., waiting: _Optional[int] = ..., slack: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., expected_micros: _Optional[float] = ..., shed: _Optional[int] = ..., ahead: bool = ..., why: _Optional[str] = ...) -> None: ...

class RegisterReplicaRequest(_message.Message):
    __slots__ = ("model", "version", "replica", "address", "lease", "token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    replica: str
    address: str
    lease: _duration_pb2.Duration
    token: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., replica: _Optional[str] = ..., address: _Optional[str] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class RegisterReplicaResponse(_message.Message):
    __slots__ = ("lease", "deployed")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    deployed: bool
    def __init__(self, lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., deployed: bool = ...) -> None: ...

class GetModelRepositoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelRepositoryResponse(_message.Message):
    __slots__ = ("location", "scan_time", "failure", "versions")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    SCAN_TIME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    location: str
    scan_time: _timestamp_pb2.Timestamp
    failure: str
    versions: _containers.RepeatedCompositeFieldContainer[RepositoryVersion]
    def __init__(self, location: _Optional[str] = ..., scan_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., failure: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[RepositoryVersion, _Mapping]]] = ...) -> None: ...

class RepositoryVersion(_message.Message):
    __slots__ = ("model", "version", "state", "message")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: RepositoryState
    message: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[RepositoryState, str]] = ..., message: _Optional[str] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("model", "version", "replica", "follow", "tail", "since", "previous", "instance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    replica: str
    follow: bool
    tail: int
    since: _timestamp_pb2.Timestamp
    previous: bool
    instance: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., replica: _Optional[str] = ..., follow: bool = ..., tail: _Optional[int] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., previous: bool = ..., instance: _Optional[str] = ...) -> None: ...

class ReadLogsResponse(_message.Message):
    __slots__ = ("replica", "instance", "time", "text")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    replica: str
    instance: str
    time: _timestamp_pb2.Timestamp
    text: str
    def __init__(self, replica: _Optional[str] = ..., instance: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...
