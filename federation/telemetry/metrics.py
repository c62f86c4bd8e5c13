"""The names of metrics, once, with their help texts, labels and units; and registries that hold them.

Dashboards and alerts outlive code, so a metric is declared here as data and made from that by `Metrics`.
Each process makes one `Metrics` and hands it to those who count; there is no global registry, so tests do
not meet each other. Names follow Prometheus' practice: prefix, unit in the name, `_total` for what only
grows. Labels have few values: a training or a cluster, never a round, an address or a message.

This module refuses to know who serves the text, and on which port.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import prometheus_client
from prometheus_client import exposition

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST

# From a loopback round of a small model (milliseconds) to one over a slow link (an hour).
ROUND_SECONDS_BUCKETS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
)


class Kind(enum.Enum):
    """How a metric behaves: a counter grows, a gauge goes up and down, a histogram sorts into buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric as dashboards know it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CLUSTERS_CONNECTED = Metric(
    "hanse_clusters_connected", Kind.GAUGE, "Edge clusters with an open control session."
)
CLUSTER_LAST_HEARTBEAT = Metric(
    "hanse_cluster_last_heartbeat_timestamp_seconds",
    Kind.GAUGE,
    "When the cluster was last heard of, in unix seconds.",
    ("cluster",),
)
CERTIFICATE_EXPIRY = Metric(
    "hanse_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When the certificate in use ends, in unix seconds.",
    ("identity",),
)
CERTIFICATES_ISSUED = Metric(
    "hanse_certificates_issued_total",
    Kind.COUNTER,
    "Certificates signed, by whom they name: cluster, client, aggregator or coordinator.",
    ("subject",),
)
DENIALS = Metric(
    "hanse_denials_total",
    Kind.COUNTER,
    "Calls refused, by the typed reason of federation/wire/denials.py.",
    ("method", "reason"),
)
TRAININGS = Metric(
    "hanse_trainings", Kind.GAUGE, "Trainings that the coordinator holds, by phase.", ("phase",)
)
RECONCILE_SECONDS = Metric(
    "hanse_reconcile_seconds",
    Kind.HISTOGRAM,
    "Time from gathering to having applied a plan.",
    (),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
ROUND = Metric("hanse_round", Kind.GAUGE, "The round that the training is in, from 1.", ("training",))
ROUND_SECONDS = Metric(
    "hanse_round_seconds",
    Kind.HISTOGRAM,
    "Time from a round's first task to its aggregate.",
    ("training",),
    ROUND_SECONDS_BUCKETS,
)
PHASE_SECONDS = Metric(
    "hanse_phase_seconds_total",
    Kind.COUNTER,
    "Time spent in each phase of the rounds.",
    ("training", "phase"),
)
UPDATES_ACCEPTED = Metric(
    "hanse_updates_accepted_total", Kind.COUNTER, "Updates that passed the checks.", ("training",)
)
UPDATES_REFUSED = Metric(
    "hanse_updates_refused_total",
    Kind.COUNTER,
    "Updates that a check refused, by its reason.",
    ("training", "reason"),
)
CLIENTS_CONNECTED = Metric(
    "hanse_clients_connected", Kind.GAUGE, "Clients with an open exchange session.", ("training",)
)
BYTES_SENT = Metric(
    "hanse_message_sent_bytes_total", Kind.COUNTER, "Bytes of messages sent to clients.", ("training",)
)
BYTES_RECEIVED = Metric(
    "hanse_message_received_bytes_total",
    Kind.COUNTER,
    "Bytes of messages received from clients.",
    ("training",),
)
ASSIGNMENTS = Metric(
    "hanse_agent_assignments", Kind.GAUGE, "Assignments that the edge agent holds, by state.", ("state",)
)
RECONNECTS = Metric(
    "hanse_agent_reconnects_total", Kind.COUNTER, "Times that the edge agent dialled again after a lost link."
)
CLIENT_RESTARTS = Metric(
    "hanse_agent_client_restarts_total",
    Kind.COUNTER,
    "Times that the edge agent started a client process again.",
    ("training",),
)

COORDINATOR = (
    CLUSTERS_CONNECTED,
    CLUSTER_LAST_HEARTBEAT,
    CERTIFICATE_EXPIRY,
    CERTIFICATES_ISSUED,
    DENIALS,
    TRAININGS,
    RECONCILE_SECONDS,
)
AGGREGATOR = (
    ROUND,
    ROUND_SECONDS,
    PHASE_SECONDS,
    UPDATES_ACCEPTED,
    UPDATES_REFUSED,
    CLIENTS_CONNECTED,
    BYTES_SENT,
    BYTES_RECEIVED,
    CERTIFICATE_EXPIRY,
    DENIALS,
)
EDGE_AGENT = (ASSIGNMENTS, RECONNECTS, CLIENT_RESTARTS, CERTIFICATE_EXPIRY)

ALL: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metric in (*COORDINATOR, *AGGREGATOR, *EDGE_AGENT)}
)

_Collector = prometheus_client.Counter | prometheus_client.Gauge | prometheus_client.Histogram
_C = TypeVar("_C", bound=_Collector)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._collectors: dict[str, _Collector] = {}
        for metric in declared:
            self._collectors[metric.name] = self._make(metric)

    def increase(self, metric: Metric, by: float = 1.0, **labels: str) -> None:
        """Let a counter grow. Raises KeyError for a metric that this process did not declare."""
        collector = self._of(metric, prometheus_client.Counter)
        (collector.labels(**labels) if labels else collector).inc(by)

    def put(self, metric: Metric, value: float, **labels: str) -> None:
        """Let a gauge show this value."""
        collector = self._of(metric, prometheus_client.Gauge)
        (collector.labels(**labels) if labels else collector).set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Sort one observation, in the unit that the metric's name ends in, into a histogram."""
        collector = self._of(metric, prometheus_client.Histogram)
        (collector.labels(**labels) if labels else collector).observe(value)

    def forget(self, metric: Metric, **labels: str) -> None:
        """Show this series no more, e.g. of a training that was deleted; an unknown one is ignored."""
        collector = self._collectors[metric.name]
        values = tuple(labels[name] for name in metric.labels)
        try:
            collector.remove(*values)
        except KeyError:
            return

    def text(self) -> bytes:
        """Everything in Prometheus' text format; its content type is CONTENT_TYPE."""
        return exposition.generate_latest(self.registry)

    def _make(self, metric: Metric) -> _Collector:
        if metric.kind is Kind.HISTOGRAM:
            return prometheus_client.Histogram(
                metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        make: Callable[..., _Collector] = (
            prometheus_client.Counter if metric.kind is Kind.COUNTER else prometheus_client.Gauge
        )
        return make(metric.name, metric.help, metric.labels, registry=self.registry)

    def _of(self, metric: Metric, kind: type[_C]) -> _C:
        collector = self._collectors[metric.name]
        if not isinstance(collector, kind):
            raise TypeError(f"{metric.name} is a {metric.kind.value}, not a {kind.__name__.lower()}")
        return collector
