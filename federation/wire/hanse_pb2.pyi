from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssignmentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSIGNMENT_STATE_UNSPECIFIED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_PREPARING: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_RUNNING: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_REFUSED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_FAILED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_STOPPED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_WAITING: _ClassVar[AssignmentState]
ASSIGNMENT_STATE_UNSPECIFIED: AssignmentState
ASSIGNMENT_STATE_PREPARING: AssignmentState
ASSIGNMENT_STATE_RUNNING: AssignmentState
ASSIGNMENT_STATE_REFUSED: AssignmentState
ASSIGNMENT_STATE_FAILED: AssignmentState
ASSIGNMENT_STATE_STOPPED: AssignmentState
ASSIGNMENT_STATE_WAITING: AssignmentState

class JoinRequest(_message.Message):
    __slots__ = ("token", "cluster", "csr_pem", "agent_version", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    token: str
    cluster: str
    csr_pem: bytes
    agent_version: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, token: _Optional[str] = ..., cluster: _Optional[str] = ..., csr_pem: _Optional[bytes] = ..., agent_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("certificate", "control_address", "control_server_name")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    certificate: CertificateReply
    control_address: str
    control_server_name: str
    def __init__(self, certificate: _Optional[_Union[CertificateReply, _Mapping]] = ..., control_address: _Optional[str] = ..., control_server_name: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_pem",)
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    csr_pem: bytes
    def __init__(self, csr_pem: _Optional[bytes] = ...) -> None: ...

class CertificateReply(_message.Message):
    __slots__ = ("chain_pem", "trust_bundle_pem")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    TRUST_BUNDLE_PEM_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    trust_bundle_pem: bytes
    def __init__(self, chain_pem: _Optional[bytes] = ..., trust_bundle_pem: _Optional[bytes] = ...) -> None: ...

class ProtocolRange(_message.Message):
    __slots__ = ("oldest", "newest")
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    oldest: int
    newest: int
    def __init__(self, oldest: _Optional[int] = ..., newest: _Optional[int] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "datasets", "assignment", "heartbeat", "log", "leaving")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    hello: AgentHello
    datasets: OfferedDatasets
    assignment: AssignmentStatus
    heartbeat: Heartbeat
    log: LogLines
    leaving: Leaving
    def __init__(self, hello: _Optional[_Union[AgentHello, _Mapping]] = ..., datasets: _Optional[_Union[OfferedDatasets, _Mapping]] = ..., assignment: _Optional[_Union[AssignmentStatus, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., log: _Optional[_Union[LogLines, _Mapping]] = ..., leaving: _Optional[_Union[Leaving, _Mapping]] = ...) -> None: ...

class AgentHello(_message.Message):
    __slots__ = ("protocol", "agent_version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolRange
    agent_version: str
    def __init__(self, protocol: _Optional[_Union[ProtocolRange, _Mapping]] = ..., agent_version: _Optional[str] = ...) -> None: ...

class OfferedDatasets(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[OfferedDataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[OfferedDataset, _Mapping]]] = ...) -> None: ...

class OfferedDataset(_message.Message):
    __slots__ = ("name", "examples", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    examples: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., examples: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class AssignmentStatus(_message.Message):
    __slots__ = ("uid", "state", "reason", "message", "log_tail")
    UID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    uid: str
    state: AssignmentState
    reason: str
    message: str
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, uid: _Optional[str] = ..., state: _Optional[_Union[AssignmentState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., log_tail: _Optional[_Iterable[str]] = ...) -> None: ...

class LogLines(_message.Message):
    __slots__ = ("uid", "lines")
    UID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    uid: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, uid: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class Leaving(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HubMessage(_message.Message):
    __slots__ = ("welcome", "assignments", "goodbye")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    welcome: AgentWelcome
    assignments: Assignments
    goodbye: Goodbye
    def __init__(self, welcome: _Optional[_Union[AgentWelcome, _Mapping]] = ..., assignments: _Optional[_Union[Assignments, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class AgentWelcome(_message.Message):
    __slots__ = ("protocol", "heartbeat_interval_seconds", "hub")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HUB_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    heartbeat_interval_seconds: float
    hub: str
    def __init__(self, protocol: _Optional[int] = ..., heartbeat_interval_seconds: _Optional[float] = ..., hub: _Optional[str] = ...) -> None: ...

class Assignments(_message.Message):
    __slots__ = ("assignments",)
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("uid", "namespace", "name", "dataset", "app_digest", "app", "aggregator_address", "aggregator_server_name", "run_config_json", "image", "strategy", "rounds", "resource_limits", "resource_requests", "privacy_json", "maximum_restarts", "same_address", "resting", "generation")
    class ResourceLimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ResourceRequestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    UID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    APP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_JSON_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    SAME_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    namespace: str
    name: str
    dataset: str
    app_digest: str
    app: AppSource
    aggregator_address: str
    aggregator_server_name: str
    run_config_json: str
    image: str
    strategy: str
    rounds: int
    resource_limits: _containers.ScalarMap[str, str]
    resource_requests: _containers.ScalarMap[str, str]
    privacy_json: str
    maximum_restarts: int
    same_address: bool
    resting: bool
    generation: int
    def __init__(self, uid: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., dataset: _Optional[str] = ..., app_digest: _Optional[str] = ..., app: _Optional[_Union[AppSource, _Mapping]] = ..., aggregator_address: _Optional[str] = ..., aggregator_server_name: _Optional[str] = ..., run_config_json: _Optional[str] = ..., image: _Optional[str] = ..., strategy: _Optional[str] = ..., rounds: _Optional[int] = ..., resource_limits: _Optional[_Mapping[str, str]] = ..., resource_requests: _Optional[_Mapping[str, str]] = ..., privacy_json: _Optional[str] = ..., maximum_restarts: _Optional[int] = ..., same_address: _Optional[bool] = ..., resting: _Optional[bool] = ..., generation: _Optional[int] = ...) -> None: ...

class AppSource(_message.Message):
    __slots__ = ("bundle", "installed")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FIELD_NUMBER: _ClassVar[int]
    bundle: bool
    installed: InstalledApp
    def __init__(self, bundle: _Optional[bool] = ..., installed: _Optional[_Union[InstalledApp, _Mapping]] = ...) -> None: ...

class InstalledApp(_message.Message):
    __slots__ = ("client_app", "server_app")
    CLIENT_APP_FIELD_NUMBER: _ClassVar[int]
    SERVER_APP_FIELD_NUMBER: _ClassVar[int]
    client_app: str
    server_app: str
    def __init__(self, client_app: _Optional[str] = ..., server_app: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "message", "may_return")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MAY_RETURN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    may_return: bool
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., may_return: _Optional[bool] = ...) -> None: ...

class IssueClientCertificateRequest(_message.Message):
    __slots__ = ("namespace", "name", "dataset", "csr_pem")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    dataset: str
    csr_pem: bytes
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., dataset: _Optional[str] = ..., csr_pem: _Optional[bytes] = ...) -> None: ...

class FetchBundleRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class BundleChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class AggregatorMessage(_message.Message):
    __slots__ = ("hello", "report", "finished", "log")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    hello: AggregatorHello
    report: ProgressReport
    finished: TrainingFinished
    log: LogLines
    def __init__(self, hello: _Optional[_Union[AggregatorHello, _Mapping]] = ..., report: _Optional[_Union[ProgressReport, _Mapping]] = ..., finished: _Optional[_Union[TrainingFinished, _Mapping]] = ..., log: _Optional[_Union[LogLines, _Mapping]] = ...) -> None: ...

class AggregatorHello(_message.Message):
    __slots__ = ("protocol", "exchange_address", "server_name")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolRange
    exchange_address: str
    server_name: str
    def __init__(self, protocol: _Optional[_Union[ProtocolRange, _Mapping]] = ..., exchange_address: _Optional[str] = ..., server_name: _Optional[str] = ...) -> None: ...

class ProgressReport(_message.Message):
    __slots__ = ("round", "rounds_total", "phase", "message", "round_started_at", "clusters", "metrics", "bytes_sent", "bytes_received", "phase_seconds", "reason", "diverged")
    class PhaseSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUND_STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    PHASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    round: int
    rounds_total: int
    phase: str
    message: str
    round_started_at: float
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterProgress]
    metrics: _containers.RepeatedCompositeFieldContainer[RoundMetrics]
    bytes_sent: int
    bytes_received: int
    phase_seconds: _containers.ScalarMap[str, float]
    reason: str
    diverged: str
    def __init__(self, round: _Optional[int] = ..., rounds_total: _Optional[int] = ..., phase: _Optional[str] = ..., message: _Optional[str] = ..., round_started_at: _Optional[float] = ..., clusters: _Optional[_Iterable[_Union[ClusterProgress, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[RoundMetrics, _Mapping]]] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ..., phase_seconds: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ..., diverged: _Optional[str] = ...) -> None: ...

class ClusterProgress(_message.Message):
    __slots__ = ("cluster", "state", "reason", "message", "round", "examples", "last_update_at", "bytes_sent", "bytes_received")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_AT_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    state: str
    reason: str
    message: str
    round: int
    examples: int
    last_update_at: float
    bytes_sent: int
    bytes_received: int
    def __init__(self, cluster: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., round: _Optional[int] = ..., examples: _Optional[int] = ..., last_update_at: _Optional[float] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ...) -> None: ...

class RoundMetrics(_message.Message):
    __slots__ = ("round", "phase", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: str
    values: _containers.ScalarMap[str, float]
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[str] = ..., values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class TrainingFinished(_message.Message):
    __slots__ = ("succeeded", "reason", "message", "model_uri", "model_sha256", "model_round", "log_tail")
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_URI_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_ROUND_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    succeeded: bool
    reason: str
    message: str
    model_uri: str
    model_sha256: str
    model_round: int
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, succeeded: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., model_uri: _Optional[str] = ..., model_sha256: _Optional[str] = ..., model_round: _Optional[int] = ..., log_tail: _Optional[_Iterable[str]] = ...) -> None: ...

class AggregatorDirective(_message.Message):
    __slots__ = ("welcome", "roster", "stop", "rules")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    welcome: AggregatorWelcome
    roster: Roster
    stop: StopTraining
    rules: RoundRules
    def __init__(self, welcome: _Optional[_Union[AggregatorWelcome, _Mapping]] = ..., roster: _Optional[_Union[Roster, _Mapping]] = ..., stop: _Optional[_Union[StopTraining, _Mapping]] = ..., rules: _Optional[_Union[RoundRules, _Mapping]] = ...) -> None: ...

class AggregatorWelcome(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class Roster(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[RosterMember]
    def __init__(self, members: _Optional[_Iterable[_Union[RosterMember, _Mapping]]] = ...) -> None: ...

class RosterMember(_message.Message):
    __slots__ = ("cluster", "expected", "reason", "message")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    expected: bool
    reason: str
    message: str
    def __init__(self, cluster: _Optional[str] = ..., expected: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StopTraining(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class RoundRules(_message.Message):
    __slots__ = ("quorum", "minimum_fraction", "deadline_seconds", "late_replies", "grace_seconds", "over_provision_fraction", "rounds")
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATE_REPLIES_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OVER_PROVISION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    quorum: int
    minimum_fraction: str
    deadline_seconds: float
    late_replies: str
    grace_seconds: float
    over_provision_fraction: str
    rounds: int
    def __init__(self, quorum: _Optional[int] = ..., minimum_fraction: _Optional[str] = ..., deadline_seconds: _Optional[float] = ..., late_replies: _Optional[str] = ..., grace_seconds: _Optional[float] = ..., over_provision_fraction: _Optional[str] = ..., rounds: _Optional[int] = ...) -> None: ...

class ClientFrames(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[ClientFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[ClientFrame, _Mapping]]] = ...) -> None: ...

class AggregatorFrames(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[AggregatorFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[AggregatorFrame, _Mapping]]] = ...) -> None: ...

class ClientFrame(_message.Message):
    __slots__ = ("hello", "begin", "chunk", "received", "failure", "log")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    hello: ClientHello
    begin: TransferBegin
    chunk: TransferChunk
    received: TransferReceived
    failure: ClientFailure
    log: LogLines
    def __init__(self, hello: _Optional[_Union[ClientHello, _Mapping]] = ..., begin: _Optional[_Union[TransferBegin, _Mapping]] = ..., chunk: _Optional[_Union[TransferChunk, _Mapping]] = ..., received: _Optional[_Union[TransferReceived, _Mapping]] = ..., failure: _Optional[_Union[ClientFailure, _Mapping]] = ..., log: _Optional[_Union[LogLines, _Mapping]] = ...) -> None: ...

class AggregatorFrame(_message.Message):
    __slots__ = ("welcome", "begin", "chunk", "received", "goodbye", "withdrawn")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    welcome: ClientWelcome
    begin: TransferBegin
    chunk: TransferChunk
    received: TransferReceived
    goodbye: Goodbye
    withdrawn: MessageWithdrawn
    def __init__(self, welcome: _Optional[_Union[ClientWelcome, _Mapping]] = ..., begin: _Optional[_Union[TransferBegin, _Mapping]] = ..., chunk: _Optional[_Union[TransferChunk, _Mapping]] = ..., received: _Optional[_Union[TransferReceived, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., withdrawn: _Optional[_Union[MessageWithdrawn, _Mapping]] = ...) -> None: ...

class ClientHello(_message.Message):
    __slots__ = ("protocol", "held", "receiving", "warm")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    RECEIVING_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolRange
    held: _containers.RepeatedScalarFieldContainer[bytes]
    receiving: TransferPosition
    warm: bool
    def __init__(self, protocol: _Optional[_Union[ProtocolRange, _Mapping]] = ..., held: _Optional[_Iterable[bytes]] = ..., receiving: _Optional[_Union[TransferPosition, _Mapping]] = ..., warm: _Optional[bool] = ...) -> None: ...

class ClientWelcome(_message.Message):
    __slots__ = ("protocol", "node_id", "run_id", "receiving", "chunk_bytes")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVING_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    node_id: int
    run_id: int
    receiving: TransferPosition
    chunk_bytes: int
    def __init__(self, protocol: _Optional[int] = ..., node_id: _Optional[int] = ..., run_id: _Optional[int] = ..., receiving: _Optional[_Union[TransferPosition, _Mapping]] = ..., chunk_bytes: _Optional[int] = ...) -> None: ...

class TransferPosition(_message.Message):
    __slots__ = ("transfer_id", "offset")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    offset: int
    def __init__(self, transfer_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class TransferBegin(_message.Message):
    __slots__ = ("transfer_id", "total_bytes", "offset")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    total_bytes: int
    offset: int
    def __init__(self, transfer_id: _Optional[str] = ..., total_bytes: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class TransferChunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class TransferReceived(_message.Message):
    __slots__ = ("transfer_id",)
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    def __init__(self, transfer_id: _Optional[str] = ...) -> None: ...

class MessageWithdrawn(_message.Message):
    __slots__ = ("message_id",)
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    def __init__(self, message_id: _Optional[str] = ...) -> None: ...

class ClientFailure(_message.Message):
    __slots__ = ("reason", "message", "log_tail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., log_tail: _Optional[_Iterable[str]] = ...) -> None: ...

class MessageHeader(_message.Message):
    __slots__ = ("message_id", "reply_to_message_id", "run_id", "source_node_id", "destination_node_id", "group_id", "message_type", "created_at", "ttl_seconds", "error", "records", "has_content", "source_task_id", "destination_task_id", "omitted")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    HAS_CONTENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    reply_to_message_id: str
    run_id: int
    source_node_id: int
    destination_node_id: int
    group_id: str
    message_type: str
    created_at: float
    ttl_seconds: float
    error: MessageError
    records: _containers.RepeatedCompositeFieldContainer[Record]
    has_content: bool
    source_task_id: int
    destination_task_id: int
    omitted: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, message_id: _Optional[str] = ..., reply_to_message_id: _Optional[str] = ..., run_id: _Optional[int] = ..., source_node_id: _Optional[int] = ..., destination_node_id: _Optional[int] = ..., group_id: _Optional[str] = ..., message_type: _Optional[str] = ..., created_at: _Optional[float] = ..., ttl_seconds: _Optional[float] = ..., error: _Optional[_Union[MessageError, _Mapping]] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., has_content: _Optional[bool] = ..., source_task_id: _Optional[int] = ..., destination_task_id: _Optional[int] = ..., omitted: _Optional[_Iterable[bytes]] = ...) -> None: ...

class MessageError(_message.Message):
    __slots__ = ("code", "reason", "has_reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HAS_REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    has_reason: bool
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., has_reason: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("name", "arrays", "metrics", "config")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    name: str
    arrays: Arrays
    metrics: Values
    config: Values
    def __init__(self, name: _Optional[str] = ..., arrays: _Optional[_Union[Arrays, _Mapping]] = ..., metrics: _Optional[_Union[Values, _Mapping]] = ..., config: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...

class Arrays(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ArrayEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[ArrayEntry, _Mapping]]] = ...) -> None: ...

class ArrayEntry(_message.Message):
    __slots__ = ("name", "dtype", "shape", "serialization", "digest", "length_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SERIALIZATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    serialization: str
    digest: bytes
    length_bytes: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., serialization: _Optional[str] = ..., digest: _Optional[bytes] = ..., length_bytes: _Optional[int] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[NamedValue]
    def __init__(self, entries: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ...) -> None: ...

class NamedValue(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("integer", "large_integer", "real", "boolean", "text", "data", "list", "blob")
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    LARGE_INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    integer: int
    large_integer: int
    real: float
    boolean: bool
    text: str
    data: bytes
    list: ValueList
    blob: ArrayEntry
    def __init__(self, integer: _Optional[int] = ..., large_integer: _Optional[int] = ..., real: _Optional[float] = ..., boolean: _Optional[bool] = ..., text: _Optional[str] = ..., data: _Optional[bytes] = ..., list: _Optional[_Union[ValueList, _Mapping]] = ..., blob: _Optional[_Union[ArrayEntry, _Mapping]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("items", "integers", "large_integers", "reals", "booleans", "texts", "data")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    LARGE_INTEGERS_FIELD_NUMBER: _ClassVar[int]
    REALS_FIELD_NUMBER: _ClassVar[int]
    BOOLEANS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    integers: _containers.RepeatedScalarFieldContainer[int]
    large_integers: _containers.RepeatedScalarFieldContainer[int]
    reals: _containers.RepeatedScalarFieldContainer[float]
    booleans: _containers.RepeatedScalarFieldContainer[bool]
    texts: _containers.RepeatedScalarFieldContainer[str]
    data: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., integers: _Optional[_Iterable[int]] = ..., large_integers: _Optional[_Iterable[int]] = ..., reals: _Optional[_Iterable[float]] = ..., booleans: _Optional[_Iterable[bool]] = ..., texts: _Optional[_Iterable[str]] = ..., data: _Optional[_Iterable[bytes]] = ...) -> None: ...
