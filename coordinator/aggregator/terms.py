"""A training's manifest as the round machine and the update checks want it.

Why it exists: the manifest speaks Kubernetes (camelCase, decimals as strings), the pure cores speak numbers.
Nothing is decided here.
"""

from __future__ import annotations

from fractions import Fraction

from coordinator.aggregation import checks, events
from coordinator.aggregator import config as aggregator_config
from federation.api import training
from federation.wire import hanse_pb2 as pb


def rules_of(
    spec: training.FederatedTrainingSpec, config: aggregator_config.AggregatorConfig
) -> events.RoundRules:
    """The round machine's rules at the start; the graces are the hub operator's."""
    return events.RoundRules(
        quorum=spec.clusters.minimum,
        minimum_fraction=Fraction(spec.round.minimum_fraction),
        deadline_seconds=spec.round.deadline_seconds,
        late_replies=events.LateReplies(spec.round.late_replies),
        grace_seconds=spec.round.grace_seconds,
        over_provision_fraction=Fraction(spec.round.over_provision_fraction),
        link_grace_seconds=config.link_grace_seconds,
        start_grace_seconds=config.start_grace_seconds,
        start_deadline_seconds=max(config.start_deadline_seconds, spec.round.deadline_seconds),
    )


def changed_rules(rules: pb.RoundRules, config: aggregator_config.AggregatorConfig) -> events.RoundRules:
    """The rules after a change of the spec, as the coordinator sends them."""
    return events.RoundRules(
        quorum=max(1, rules.quorum),
        minimum_fraction=Fraction(rules.minimum_fraction or "0"),
        deadline_seconds=rules.deadline_seconds or None,
        late_replies=events.LateReplies(rules.late_replies or events.LateReplies.DISCARD),
        grace_seconds=rules.grace_seconds if rules.HasField("grace_seconds") else None,
        over_provision_fraction=Fraction(rules.over_provision_fraction or "0"),
        link_grace_seconds=config.link_grace_seconds,
        start_grace_seconds=config.start_grace_seconds,
        start_deadline_seconds=max(config.start_deadline_seconds, rules.deadline_seconds),
    )


def limits_of(spec: training.FederatedTrainingSpec) -> checks.Limits:
    """The bounds of an update."""
    bounds = spec.update_checks
    return checks.Limits(
        maximum_update_bytes=bounds.maximum_update_bytes,
        maximum_examples=bounds.maximum_examples,
        maximum_norm=float(bounds.maximum_norm) if bounds.maximum_norm else None,
        structure=checks.Structure(bounds.structure),
    )


def asks_for_quorum(spec: training.FederatedTrainingSpec) -> bool:
    """Whether the manifest asks for more than the default, which one cluster satisfies."""
    return spec.clusters.minimum > 1 or Fraction(spec.round.minimum_fraction) > 0
