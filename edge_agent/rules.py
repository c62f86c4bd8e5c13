"""An EdgePolicy's rules in the shape that deciding needs: patterns, numbers and windows already read.

A rule that cannot be held to stays in the list and says so, so that `policy` can err on the owner's side.
This module refuses to decide anything.
"""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Mapping

from edge_agent import schedules
from federation.api import meta
from federation.api import policy as api

APPROVAL_ANNOTATION = "hanse.dev/approved-trainings"
"""On an EdgePolicy: the trainings, NAMESPACE/NAME with commas between, that its owner has approved."""

EGRESS_NOT_COUNTED = "limits.egressBytesPerDay would limit nothing: it is not counted yet"
"""An owner's limit that nobody holds to must not look as if it held."""

GPU_RESOURCE = "nvidia.com/gpu"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule; what is None is not restricted by it, an empty list matches nothing.

    unusable: why the rule (or, if it allows, a rule beside it) cannot be enforced; None if it can.
    ceilings: Kubernetes quantities by resource name.
    approved: trainings, NAMESPACE/NAME, that the owner has approved where `manual_approval` asks for it.
    """

    policy: str
    name: str
    denies: bool = False
    unusable: str | None = None
    trainings: tuple[api.TrainingPattern, ...] | None = None
    datasets: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    digests: tuple[str, ...] | None = None
    signers: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    maximum_epsilon: decimal.Decimal | None = None
    ceilings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    maximum_rounds: int | None = None
    minimum_examples: int | None = None
    windows: tuple[schedules.Window, ...] | None = None
    manual_approval: bool = False
    approved: frozenset[str] = frozenset()


def read(policy: api.EdgePolicy) -> tuple[Rule, ...]:
    """Return the policy's rules; if one cannot be enforced, none of this policy's rules allows anything."""
    found = [_read_rule(policy, rule) for rule in policy.spec.rules]
    broken = next((rule for rule in found if rule.unusable), None)
    if broken is None:
        return tuple(found)
    return tuple(
        rule
        if rule.denies or rule.unusable
        else dataclasses.replace(rule, unusable=f"rule {broken.name} beside it: {broken.unusable}")
        for rule in found
    )


def promised_epsilon(privacy: Mapping[str, object]) -> decimal.Decimal | None:
    """Return the epsilon of a training's spec.privacy, None when it promises none that can be read."""
    promise = privacy.get("differentialPrivacy")
    epsilon = promise.get("epsilon") if isinstance(promise, Mapping) else None
    if not isinstance(epsilon, str):
        return None
    try:
        value = decimal.Decimal(epsilon)
    except decimal.InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 else None


def _read_rule(policy: api.EdgePolicy, rule: api.PolicyRule) -> Rule:
    read_part = Rule(
        policy=policy.name,
        name=rule.name,
        denies=rule.effect is api.Effect.DENY,
        trainings=rule.trainings,
        datasets=rule.datasets,
        images=rule.images,
        digests=rule.apps.digests if rule.apps else None,
        signers=rule.apps.signed_by if rule.apps else None,
        strategies=rule.strategies,
        manual_approval=rule.approval is api.Approval.MANUAL,
        approved=frozenset(
            part.strip() for part in policy.metadata.annotations.get(APPROVAL_ANNOTATION, "").split(",")
        ),
    )
    limits = rule.limits or api.Limits()
    if limits.egress_bytes_per_day is not None:
        return dataclasses.replace(read_part, unusable=EGRESS_NOT_COUNTED)
    try:
        return dataclasses.replace(
            read_part,
            windows=tuple(schedules.parse(text) for text in rule.schedule.windows) if rule.schedule else None,
            maximum_epsilon=_epsilon(rule),
            ceilings=_ceilings(limits),
            maximum_rounds=limits.rounds,
            minimum_examples=limits.minimum_examples,
        )
    except (ValueError, decimal.InvalidOperation) as error:
        return dataclasses.replace(read_part, unusable=str(error))


def _epsilon(rule: api.PolicyRule) -> decimal.Decimal | None:
    privacy = rule.privacy.differential_privacy if rule.privacy else None
    if privacy is None or privacy.maximum_epsilon is None:
        return None
    return decimal.Decimal(privacy.maximum_epsilon)


def _ceilings(limits: api.Limits) -> dict[str, str]:
    ceilings = {"cpu": limits.cpu, "memory": limits.memory}
    stated = {name: text for name, text in ceilings.items() if text is not None}
    if limits.gpus is not None:
        stated[GPU_RESOURCE] = str(limits.gpus)
    for text in stated.values():
        meta.quantity(text)
    return stated
