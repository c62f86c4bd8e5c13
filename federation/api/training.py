"""FederatedTraining: what a data scientist asks for and what the hub says of it.

It refuses to know how a training is run; federation/api/reasons.py has the words of its status.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from federation.api import meta, model_urls
from federation.api.meta import Change, Doc, Model, Rule
from federation.api.reasons import ClusterState, TrainingPhase

MAXIMUM_CLUSTERS = 1000  # bounds status.clusters, so that an object stays far below etcd's 1.5 MiB
GIB = 2**30
meta.PATTERN_WORDS[model_urls.PATTERN] = model_urls.WORDS


class LateReplies(StrEnum):
    """What becomes of a reply that comes after its round was closed."""

    DISCARD = "Discard"
    NEXT_ROUND = "NextRound"


class Structure(StrEnum):
    """How an update's arrays must look."""

    AS_SENT = "AsSent"
    ANY = "Any"


class OnViolation(StrEnum):
    """What a refused update means for the training."""

    REFUSE_UPDATE = "RefuseUpdate"
    FAIL_TRAINING = "FailTraining"


class OnDivergence(StrEnum):
    """What happens when a ServerApp that is run again after a crash does something else than before."""

    FAIL_TRAINING = "FailTraining"
    RESTART_ROUND = "RestartRound"


class MetricPhase(StrEnum):
    """Where in a round metrics come from."""

    TRAIN = "Train"
    EVALUATE = "Evaluate"
    SERVER_EVALUATE = "ServerEvaluate"


# ---- spec ------------------------------------------------------------------------------------------------


class ConfigMapSource(Model):
    """A packed app in a ConfigMap of the training's namespace."""

    name: Annotated[meta.ObjectName, Doc("is the ConfigMap's name.", Change.NEVER)]
    key: Annotated[
        str,
        Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$"),
        Doc("is the key that holds the packed app.", Change.NEVER),
    ] = "app.fab"


class ImageSource(Model):
    """An app that is installed in the client's and the server's image (client.image, server.image)."""

    client_app: Annotated[
        str,
        Field(max_length=512, pattern=meta.MODULE_PATTERN),
        Doc("is the ClientApp as module:attribute.", Change.NEVER),
    ]
    server_app: Annotated[
        Annotated[str, Field(max_length=512, pattern=meta.MODULE_PATTERN)] | None,
        Doc("is the ServerApp as module:attribute; without it spec.strategy makes one.", Change.NEVER),
    ] = None


class OciSource(Model):
    """A packed app in an OCI registry."""

    reference: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Doc("is the artifact, for example registry.example/apps/hospitals:1.", Change.NEVER),
    ]


class AppSource(Model):
    """Where the app comes from: exactly one of the fields."""

    CEL = (meta.exactly_one_of("configMap", "image", "oci", "path"),)

    config_map: Annotated[
        ConfigMapSource | None, Doc("takes a packed app from a ConfigMap of this namespace.", Change.NEVER)
    ] = None
    image: Annotated[
        ImageSource | None, Doc("names the modules of an app that is installed in the image.", Change.NEVER)
    ] = None
    oci: Annotated[
        OciSource | None,
        Doc("takes a packed app from an OCI registry; not yet: such a training is refused.", Change.NEVER),
    ] = None
    path: Annotated[
        Annotated[str, Field(min_length=1, max_length=4096)] | None,
        Doc(
            "is a directory with the app, relative to the manifest's file; in simulations only.", Change.NEVER
        ),
    ] = None


class App(Model):
    """The Flower app and the overrides of its configuration."""

    source: Annotated[AppSource, Doc("says where the app comes from.", Change.NEVER)]
    digest: Annotated[
        meta.Digest | None,
        Doc("pins the packed app by its SHA-256; status.app.digest shows it when absent.", Change.NEVER),
    ] = None
    run_config: Annotated[
        meta.ScalarMap,
        Doc(
            "overrides the app's own configuration, key by key, with text, numbers and booleans.",
            Change.NEVER,
        ),
    ] = Field(default_factory=dict)


class StrategySpec(Model):
    """The strategy for an app without a ServerApp of its own."""

    CEL = (
        Rule(
            "self.rounds >= oldSelf.rounds",
            "rounds can be raised, not lowered; to end sooner, set spec.stop",
            ".rounds",
        ),
        Rule(
            "self.rounds == oldSelf.rounds || self.name != 'FedBuff'",
            "FedBuff takes its number of versions when it starts; create another FederatedTraining instead",
            ".rounds",
        ),
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.:]*$"),
        Doc("is a strategy of flwr.serverapp.strategy, or FedBuff.", Change.NEVER),
    ]
    rounds: Annotated[int, Field(ge=1, le=1_000_000), Doc("is the number of rounds.", Change.GROWS)]
    parameters: Annotated[
        meta.ScalarMap,
        Doc(
            "are the strategy's own, for example fraction-train; what each message says to the ClientApp, as "
            "train-config.NAME and evaluate-config.NAME; and initial-arrays, where the first model is.",
            Change.NEVER,
        ),
    ] = Field(default_factory=dict)


class Clusters(Model):
    """Which clusters take part, and how many."""

    CEL = (Rule("self.maximum >= self.minimum", "maximum must be at least minimum", ".maximum"),)

    selector: Annotated[
        meta.LabelSelector,
        Doc(
            "chooses clusters by the labels of their EdgeCluster; an empty one takes all.", Change.NEXT_ROUND
        ),
    ] = meta.LabelSelector()
    minimum: Annotated[
        int,
        Field(ge=1, le=MAXIMUM_CLUSTERS),
        Doc("is the quorum: the clusters needed to start and in every round.", Change.NEXT_ROUND),
    ] = 1
    maximum: Annotated[
        int, Field(ge=1, le=MAXIMUM_CLUSTERS), Doc("is the most clusters that take part.", Change.NEXT_ROUND)
    ] = MAXIMUM_CLUSTERS


class Round(Model):
    """The rules of a round."""

    deadline_seconds: Annotated[
        int,
        Field(ge=1, le=86_400),
        Doc("is how long a round waits for replies to a message, in seconds.", Change.NEXT_ROUND),
    ] = 600
    minimum_fraction: Annotated[
        meta.Fraction,
        Doc(
            "is the part of the asked clusters that must reply before the deadline for the round to "
            "count, as a decimal number from 0 to 1; clusters.minimum holds besides.",
            Change.NEXT_ROUND,
        ),
    ] = "0"
    grace_seconds: Annotated[
        Annotated[int, Field(ge=0, le=86_400)] | None,
        Doc(
            "is how long a round that has the replies it needs (clusters.minimum and minimumFraction) still "
            "waits for the others, in seconds; without it, until the deadline.",
            Change.NEXT_ROUND,
        ),
    ] = None
    over_provision_fraction: Annotated[
        meta.Fraction,
        Doc(
            "is by how much more clusters the app asks than a round takes, as a decimal number from 0 to 1: "
            'with "0.3", of 13 clusters asked the first 10 valid replies are taken, and nobody waits for the '
            "others. At least clusters.minimum and minimumFraction are taken.",
            Change.NEXT_ROUND,
        ),
    ] = "0"
    late_replies: Annotated[
        LateReplies,
        Doc("says what becomes of replies that come after their round was closed.", Change.NEXT_ROUND),
    ] = LateReplies.DISCARD


class Resources(Model):
    """Kubernetes resource requests and limits of a container."""

    requests: Annotated[
        meta.Quantities, Doc("are what the scheduler sets aside, such as cpu and memory.", Change.NEXT_START)
    ] = Field(default_factory=dict)
    limits: Annotated[
        meta.Quantities,
        Doc("are what the process may use at most, such as cpu and memory.", Change.NEXT_START),
    ] = Field(default_factory=dict)


Image = Annotated[str, Field(min_length=1, max_length=1024)]


class Client(Model):
    """The process beside the data."""

    image: Annotated[
        Image | None,
        Doc(
            "is the container image, best by its digest as NAME@sha256:..., which owners' policies may ask "
            "for; without it the release's own is used.",
            Change.NEVER,
        ),
    ] = None
    resources: Annotated[Resources, Doc("are the client's, on each edge.", Change.NEXT_START)] = Resources()
    maximum_restarts: Annotated[
        int,
        Field(ge=0, le=1000),
        Doc(
            "is how often a client that ended by itself is started again before its cluster fails.",
            Change.NEXT_START,
        ),
    ] = 3


class Server(Model):
    """The training's aggregator."""

    image: Annotated[
        Image | None,
        Doc(
            "is the container image, best by its digest as NAME@sha256:..., which must be one that the hub's "
            "operator allows; without it the hub's own is used.",
            Change.NEVER,
        ),
    ] = None
    resources: Annotated[Resources, Doc("are the aggregator's, on the hub.", Change.NEXT_START)] = Resources()
    maximum_restarts: Annotated[
        int,
        Field(ge=0, le=1000),
        Doc(
            "is how often in one round an aggregator that died is started again before the training fails; "
            "it goes on where it was. What its node or cluster did does not count, nor what was before it "
            "ran for ten minutes.",
            Change.NEXT_START,
        ),
    ] = 3
    on_divergence: Annotated[
        OnDivergence,
        Doc(
            "says what happens when the ServerApp, run again after a crash, does something else than before "
            "the crash: the training fails and says where, or what was done from there on is forgotten and "
            "that phase of the round is done anew.",
            Change.NEXT_START,
        ),
    ] = OnDivergence.FAIL_TRAINING


class SecretReference(Model):
    """A Secret of the same namespace."""

    secret_name: Annotated[meta.ObjectName, Doc("is the Secret's name, in the same namespace.", Change.NEVER)]


class ModelOutput(Model):
    """Where the model goes."""

    CEL = (
        *(Rule(model_urls.rule(refused), refused.why, ".store") for refused in model_urls.REFUSALS),
        Rule(
            "!has(self.endpoint) || !has(self.store) || self.store.startsWith('s3://')",
            "endpoint is for a store s3://; where another one is, its URL or options.json of the Secret says",
            ".endpoint",
        ),
    )

    store: Annotated[
        Annotated[str, Field(min_length=6, max_length=1024, pattern=model_urls.PATTERN)] | None,
        Doc(
            "is where models are written: pvc://CLAIM, s3://BUCKET/PREFIX, the URL of any other storage that "
            "fsspec knows and whose package is in the aggregator's image, or file:// in simulations; without "
            "it the hub's own store is used.",
            Change.NEVER,
        ),
    ] = None
    endpoint: Annotated[
        Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s/?#@]+/?$")] | None,
        Doc(
            "is the URL of S3-compatible storage, for example https://10.0.0.5:9000; it counts before "
            "AWS_ENDPOINT_URL of the Secret; without either it is Amazon's. With an IP address, which must "
            "not be a Service's, the aggregator reaches only that and the hub; else its way out is open.",
            Change.NEVER,
        ),
    ] = None
    credentials: Annotated[
        SecretReference | None,
        Doc(
            "is the Secret that opens the store: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and if needed "
            "AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, ca.crt; for other stores options.json, a JSON "
            "object with the arguments of fsspec's class.",
            Change.NEVER,
        ),
    ] = None
    keep_rounds: Annotated[
        int,
        Field(ge=1, le=10_000),
        Doc("is how many of the last rounds' models are kept.", Change.NEXT_ROUND),
    ] = 3


class UpdateChecks(Model):
    """What an update must satisfy before it counts."""

    maximum_norm: Annotated[
        meta.DecimalText | None,
        Doc(
            "is the largest L2 norm of the difference between update and model sent, as a decimal number; "
            "without it the norm is not checked.",
            Change.NEXT_START,
        ),
    ] = None
    maximum_update_bytes: Annotated[
        int, Field(ge=1, le=2**40), Doc("is the most bytes of arrays in one reply.", Change.NEXT_START)
    ] = 2 * GIB
    maximum_examples: Annotated[
        int, Field(ge=1, le=2**53), Doc("is the most examples that a reply may claim.", Change.NEXT_START)
    ] = 2**40
    structure: Annotated[
        Structure,
        Doc(
            "says how the reply to a train message must look: AsSent, the arrays that it was sent with the "
            "same shapes and types; Any, whatever the app makes.",
            Change.NEXT_START,
        ),
    ] = Structure.AS_SENT
    on_violation: Annotated[
        OnViolation, Doc("says whether a bad update is left out or ends the training.", Change.NEXT_START)
    ] = OnViolation.REFUSE_UPDATE


class DifferentialPrivacy(Model):
    """What the training promises of differential privacy; edges hold it against their policies."""

    CEL = (Rule("!has(self.delta) || has(self.epsilon)", "delta needs epsilon", ".delta"),)

    epsilon: Annotated[
        meta.DecimalText | None, Doc("is the privacy budget of the whole training.", Change.NEVER)
    ] = None
    delta: Annotated[
        meta.Fraction | None, Doc("is the probability that the budget does not hold, 0 to 1.", Change.NEVER)
    ] = None
    noise_multiplier: Annotated[
        meta.DecimalText | None,
        Doc("is the noise's standard deviation in units of clippingNorm.", Change.NEVER),
    ] = None
    clipping_norm: Annotated[
        meta.DecimalText | None, Doc("is the L2 norm that updates are clipped to.", Change.NEVER)
    ] = None


class Privacy(Model):
    """What the training promises to the data's owners."""

    differential_privacy: Annotated[
        DifferentialPrivacy | None, Doc("is the promise of differential privacy.", Change.NEVER)
    ] = None


class Communication(Model):
    """Bounds of what travels."""

    maximum_message_bytes: Annotated[
        int,
        Field(ge=65_536, le=2**40),
        Doc("is the most bytes of one message in either direction.", Change.NEXT_START),
    ] = 4 * GIB


_APP_REFUSED = (
    "app cannot change after creation, nor can the number of rounds of its own ServerApp, which takes it "
    "when it starts; create another FederatedTraining instead"
)


class FederatedTrainingSpec(Model):
    """What is asked for."""

    CEL = (
        Rule(
            "!has(self.app.source.image) || has(self.app.source.image.serverApp) != has(self.strategy)",
            "an app in an image needs either app.source.image.serverApp or strategy, not both",
        ),
        Rule(
            "self.stop || !oldSelf.stop",
            "a training that was stopped stays stopped; create another FederatedTraining to train again",
            ".stop",
        ),
        Rule(
            "has(self.strategy) == has(oldSelf.strategy)",
            "strategy cannot be added or removed after creation; create another FederatedTraining instead",
            ".strategy",
        ),
        Rule(
            "!has(self.privacy.differentialPrivacy) || !has(self.privacy.differentialPrivacy.epsilon) || "
            "!has(self.strategy) || !has(oldSelf.strategy) || "
            "self.strategy.rounds == oldSelf.strategy.rounds",
            "rounds cannot be raised where privacy.differentialPrivacy.epsilon is a promise for the whole "
            "training; create another FederatedTraining instead",
            ".strategy.rounds",
        ),
    )

    app: Annotated[App, Doc("is the Flower app.", Change.NEVER, refusal=_APP_REFUSED)]
    strategy: Annotated[
        StrategySpec | None,
        Doc("makes the ServerApp, for an app that has none of its own.", Change.BUT_ROUNDS),
    ] = None
    dataset: Annotated[meta.DnsLabel, Doc("is the data set that an edge must offer, by name.", Change.NEVER)]
    clusters: Annotated[Clusters, Doc("says which clusters take part, and how many.", Change.NEXT_ROUND)] = (
        Clusters()
    )
    round: Annotated[Round, Doc("has the rules of a round.", Change.NEXT_ROUND)] = Round()
    client: Annotated[Client, Doc("is the process beside the data.", Change.NEXT_START)] = Client()
    server: Annotated[Server, Doc("is the training's aggregator.", Change.NEXT_START)] = Server()
    model: Annotated[ModelOutput, Doc("says where the model goes.", Change.NEXT_ROUND)] = ModelOutput()
    update_checks: Annotated[
        UpdateChecks, Doc("are what an update must satisfy before it counts.", Change.NEXT_START)
    ] = UpdateChecks()
    privacy: Annotated[Privacy, Doc("is what the training promises to the data's owners.", Change.NEVER)] = (
        Privacy()
    )
    communication: Annotated[Communication, Doc("bounds what travels.", Change.NEXT_START)] = Communication()
    suspend: Annotated[
        bool,
        Doc(
            "ends clients and aggregator and keeps the training; false starts it again.",
            Change.ANY_TIME,
        ),
    ] = False
    stop: Annotated[
        bool,
        Doc(
            "ends the training for good, at once; its status and the model of its last round stay, its "
            "clients end.",
            Change.ONCE,
        ),
    ] = False
    ttl_seconds_after_finished: Annotated[
        Annotated[int, Field(ge=0, le=2**31 - 1)] | None,
        Doc(
            "is how many seconds after its end the training is deleted, models excepted; without it, never.",
            Change.ANY_TIME,
        ),
    ] = None


# ---- status ----------------------------------------------------------------------------------------------


class RoundStatus(Model):
    """The round counters."""

    current: Annotated[
        meta.Count, Doc("is the round in progress or last done; 0 before the first.", Change.BY_HUB)
    ] = 0
    total: Annotated[meta.Count | None, Doc("is the number of rounds, if known.", Change.BY_HUB)] = None
    started_at: Annotated[datetime | None, Doc("is when the current round began.", Change.BY_HUB)] = None
    median_seconds: Annotated[
        meta.DecimalText | None, Doc("is the median time of the rounds done, in seconds.", Change.BY_HUB)
    ] = None


class ClusterStatus(Model):
    """One cluster's part in the training."""

    name: Annotated[meta.DnsLabel, Doc("is the EdgeCluster's name.", Change.BY_HUB)]
    state: Annotated[ClusterState, Doc("is where the cluster stands.", Change.BY_HUB)]
    reason: Annotated[meta.Word | None, Doc("is why, as one CamelCase word.", Change.BY_HUB)] = None
    message: Annotated[
        Annotated[str, Field(max_length=1024)] | None,
        Doc("is one sentence for people with the next step.", Change.BY_HUB),
    ] = None
    round: Annotated[meta.Count | None, Doc("is the round of its last message.", Change.BY_HUB)] = None
    examples: Annotated[meta.BigCount | None, Doc("is the examples of its last update.", Change.BY_HUB)] = (
        None
    )
    last_update_at: Annotated[datetime | None, Doc("is when its last update came in.", Change.BY_HUB)] = None
    bytes_up: Annotated[meta.BigCount | None, Doc("is the bytes that came from it.", Change.BY_HUB)] = None
    bytes_down: Annotated[meta.BigCount | None, Doc("is the bytes that went to it.", Change.BY_HUB)] = None


class MetricsEntry(Model):
    """The metrics of one phase of one round."""

    round: Annotated[meta.Count, Doc("is the round.", Change.BY_HUB)]
    phase: Annotated[MetricPhase, Doc("is where the metrics come from.", Change.BY_HUB)]
    values: Annotated[
        dict[str, Annotated[str, Field(max_length=32)]],
        Field(max_length=64),
        Doc("are the metrics by name, as decimal numbers.", Change.BY_HUB),
    ] = Field(default_factory=dict)


class ModelStatus(Model):
    """The last stored model."""

    uri: Annotated[meta.Uri, Doc("is where the model is.", Change.BY_HUB)]
    sha256: Annotated[meta.Sha256, Doc("is the SHA-256 of the model's file.", Change.BY_HUB)]
    round: Annotated[meta.Count, Doc("is the round that made it.", Change.BY_HUB)]


class AppStatus(Model):
    """The app as it was read."""

    digest: Annotated[meta.Digest, Doc("is the SHA-256 of the packed app.", Change.BY_HUB)]


class Transfer(Model):
    """What has travelled since the start."""

    bytes_up: Annotated[meta.BigCount, Doc("is the bytes from edges to the hub.", Change.BY_HUB)] = 0
    bytes_down: Annotated[meta.BigCount, Doc("is the bytes from the hub to edges.", Change.BY_HUB)] = 0


class TrainingSummary(Model):
    """What print columns show, since a column can show one field only."""

    round: Annotated[Annotated[str, Field(max_length=32)] | None, Doc("is like 7/20.", Change.BY_HUB)] = None
    clusters: Annotated[
        Annotated[str, Field(max_length=32)] | None,
        Doc("is the clusters that take part, of those selected, like 4/5.", Change.BY_HUB),
    ] = None
    metric: Annotated[
        meta.ShortText | None, Doc("is the latest metric, like accuracy=0.812.", Change.BY_HUB)
    ] = None
    reason: Annotated[
        meta.Word | None, Doc("is the reason of the condition that explains the phase.", Change.BY_HUB)
    ] = None


class FederatedTrainingStatus(Model):
    """What the hub says of it; the hub is the only writer."""

    observed_generation: Annotated[
        meta.BigCount | None, Doc("is the metadata.generation that the status speaks of.", Change.BY_HUB)
    ] = None
    phase: Annotated[
        TrainingPhase | None, Doc("is one word for people; programs read conditions.", Change.BY_HUB)
    ] = None
    conditions: Annotated[meta.Conditions, meta.CONDITIONS] = ()
    started_at: Annotated[datetime | None, Doc("is when the first round began.", Change.BY_HUB)] = None
    completed_at: Annotated[
        datetime | None, Doc("is when the training ended, well or not.", Change.BY_HUB)
    ] = None
    round: Annotated[RoundStatus | None, Doc("has the round counters.", Change.BY_HUB)] = None
    clusters: Annotated[
        tuple[ClusterStatus, ...],
        Field(max_length=MAXIMUM_CLUSTERS),
        meta.keyed("says of each cluster why it is in or out.", Change.BY_HUB, "name"),
    ] = ()
    metrics: Annotated[
        tuple[MetricsEntry, ...],
        Field(max_length=10),
        meta.keyed("are the last ten entries, oldest first.", Change.BY_HUB, "round", "phase"),
    ] = ()
    model: Annotated[ModelStatus | None, Doc("is the last stored model.", Change.BY_HUB)] = None
    app: Annotated[AppStatus | None, Doc("is the app as it was read.", Change.BY_HUB)] = None
    transfer: Annotated[Transfer | None, Doc("is what has travelled since the start.", Change.BY_HUB)] = None
    phase_seconds: Annotated[
        dict[str, meta.DecimalText],
        Field(max_length=32),
        Doc("is where the time went, in seconds by phase.", Change.BY_HUB),
    ] = Field(default_factory=dict)
    summary: Annotated[TrainingSummary | None, Doc("is what print columns show.", Change.BY_HUB)] = None


class FederatedTraining(meta.Resource):
    """FederatedTraining asks edge clusters that hold a data set to train one model together."""

    model_config = ConfigDict(title="FederatedTraining")
    CEL = (
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.completedAt) || "
            "!has(self.spec.strategy) || !has(oldSelf.spec.strategy) || "
            "self.spec.strategy.rounds == oldSelf.spec.strategy.rounds",
            "a training that has ended takes no more rounds; create another FederatedTraining instead",
            ".spec.strategy.rounds",
        ),
    )
    ADMISSION = (
        Rule(
            "!has(self.spec.strategy) || !has(oldSelf.spec.strategy) || "
            "(has(self.spec.strategy.parameters) == has(oldSelf.spec.strategy.parameters) && "
            "(!has(self.spec.strategy.parameters) || "
            "self.spec.strategy.parameters == oldSelf.spec.strategy.parameters))",
            "parameters cannot change after creation; create another FederatedTraining instead",
            ".spec.strategy.parameters",
        ),
    )
    INFO = meta.ResourceInfo(
        kind="FederatedTraining",
        plural="federatedtrainings",
        short_names=("ft",),
        namespaced=True,
        columns=(
            meta.Column("Phase", ".status.phase"),
            meta.Column("Round", ".status.summary.round"),
            meta.Column("Clusters", ".status.summary.clusters"),
            meta.Column("Metric", ".status.summary.metric"),
            meta.Column("Model", ".status.model.uri"),
            meta.Column("Reason", ".status.summary.reason", wide=True),
            meta.Column("Dataset", ".spec.dataset", wide=True),
            meta.Column("SHA-256", ".status.model.sha256", wide=True),
            meta.Column("Age", ".metadata.creationTimestamp", type="date"),
        ),
        maximum_name_length=52,  # leaves room for what is appended in the names of Jobs and their pods
    )

    kind: Literal["FederatedTraining"] = "FederatedTraining"
    spec: Annotated[FederatedTrainingSpec, Doc("is what is asked for.", Change.ANY_TIME)]
    status: Annotated[FederatedTrainingStatus | None, Doc("is what the hub says of it.", Change.BY_HUB)] = (
        None
    )
