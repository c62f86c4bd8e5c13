"""EdgePolicy: what a data owner lets run on an edge.

A training runs if one rule allows it and none denies it. A list that is absent matches all. This module
refuses to know how rules are decided (edge_agent/policy.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from federation.api import meta
from federation.api.meta import Change, Doc, Model

_DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DAYS = f"{_DAY}(-{_DAY})?"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"
WINDOW_PATTERN = rf"^{_DAYS}(,{_DAYS})* {_TIME}-({_TIME}|24:00)( [A-Za-z][A-Za-z0-9_+/-]*)?$"
meta.PATTERN_WORDS[WINDOW_PATTERN] = "days, times and a zone, for example Mon-Fri 20:00-06:00 Europe/Zurich"

_ANY = Change.ANY_TIME
Glob = Annotated[str, Field(min_length=1, max_length=253)]


class Effect(StrEnum):
    """What a rule that matches does."""

    ALLOW = "Allow"
    DENY = "Deny"


class Approval(StrEnum):
    """Whether a person must agree to each training that a rule allows."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class TrainingPattern(Model):
    """Trainings by hub, namespace and name; * stands for any text."""

    hub: Annotated[Glob, Doc("is a pattern of the hub's name; * stands for any text.", _ANY)] = "*"
    namespace: Annotated[Glob, Doc("is a pattern of the namespace; * stands for any text.", _ANY)] = "*"
    name: Annotated[Glob, Doc("is a pattern of the name; * stands for any text.", _ANY)] = "*"


class AppsRule(Model):
    """Which apps."""

    digests: Annotated[
        Annotated[tuple[meta.Digest, ...], Field(max_length=256)] | None,
        meta.a_set("are the apps' digests; without it every digest matches.", _ANY),
    ] = None
    signed_by: Annotated[
        Annotated[tuple[meta.DnsLabel, ...], Field(max_length=32)] | None,
        meta.a_set(
            "are names of the owner's keys, one of which signed the app; without it no signature is needed.",
            _ANY,
        ),
    ] = None


class PolicyDifferentialPrivacy(Model):
    """How much differential privacy a training must promise."""

    maximum_epsilon: Annotated[
        meta.DecimalText | None,
        Doc("is the largest privacy budget; a training that promises none does not match.", _ANY),
    ] = None


class PolicyPrivacy(Model):
    """How much privacy a training must promise."""

    differential_privacy: Annotated[
        PolicyDifferentialPrivacy | None,
        Doc("is what a training must promise of differential privacy.", _ANY),
    ] = None


class Limits(Model):
    """Ceilings; an absent one does not bind."""

    cpu: Annotated[meta.Quantity | None, Doc("is the most CPU of a client, in cores.", _ANY)] = None
    memory: Annotated[meta.Quantity | None, Doc("is the most memory of a client, in bytes.", _ANY)] = None
    gpus: Annotated[
        Annotated[int, Field(ge=0, le=1024)] | None, Doc("is the most GPUs of a client.", _ANY)
    ] = None
    rounds: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None, Doc("is the most rounds of a training.", _ANY)
    ] = None
    egress_bytes_per_day: Annotated[
        meta.Quantity | None,
        Doc(
            "is the most bytes that a training's client sends in a day; not counted yet, so a policy with it "
            "allows nothing.",
            _ANY,
        ),
    ] = None
    minimum_examples: Annotated[
        Annotated[int, Field(ge=1, le=2**53)] | None,
        Doc("is the fewest examples that a data set must have to be trained on.", _ANY),
    ] = None


class Schedule(Model):
    """When clients may run."""

    windows: Annotated[
        tuple[Annotated[str, Field(max_length=128, pattern=WINDOW_PATTERN)], ...],
        Field(min_length=1, max_length=32),
        meta.a_set(
            "are when clients may run, each as days, times and zone: Mon-Fri 20:00-06:00 Europe/Zurich; UTC "
            "without a zone, and an end before its start is on the next day.",
            _ANY,
        ),
    ]


class PolicyRule(Model):
    """One rule in the owner's words."""

    name: Annotated[meta.DnsLabel, Doc("is how messages name the rule.", _ANY)]
    effect: Annotated[Effect, Doc("is what the rule does when it matches.", _ANY)] = Effect.ALLOW
    trainings: Annotated[
        Annotated[tuple[TrainingPattern, ...], Field(max_length=64)] | None,
        meta.atomic("are the trainings that match; without it all do.", _ANY),
    ] = None
    datasets: Annotated[
        Annotated[tuple[meta.DnsLabel, ...], Field(max_length=256)] | None,
        meta.a_set("are the data sets, by spec.name; without it all match.", _ANY),
    ] = None
    apps: Annotated[AppsRule | None, Doc("says which apps match; without it all do.", _ANY)] = None
    images: Annotated[
        Annotated[tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(max_length=64)]
        | None,
        meta.a_set(
            "are patterns of client images, * stands for any text, as in *@sha256:* for images by digest; "
            "without it all match.",
            _ANY,
        ),
    ] = None
    strategies: Annotated[
        Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=64)]
        | None,
        meta.a_set("are strategies by name; without it all match, and an app's own ServerApp too.", _ANY),
    ] = None
    privacy: Annotated[
        PolicyPrivacy | None, Doc("is how much privacy a training must promise; without it, none.", _ANY)
    ] = None
    limits: Annotated[Limits | None, Doc("are ceilings; without it there are none.", _ANY)] = None
    schedule: Annotated[Schedule | None, Doc("says when clients may run; without it, always.", _ANY)] = None
    approval: Annotated[Approval, Doc("says whether a person must agree to each training.", _ANY)] = (
        Approval.AUTOMATIC
    )


class EdgePolicySpec(Model):
    """The owner's rules."""

    rules: Annotated[
        tuple[PolicyRule, ...],
        Field(max_length=64),
        meta.keyed("are the owner's; a training runs if one allows it and none denies it.", _ANY, "name"),
    ] = ()


class EdgePolicyStatus(Model):
    """What the edge agent says of the policy."""

    observed_generation: Annotated[
        meta.BigCount | None, Doc("is the metadata.generation that the status speaks of.", Change.BY_AGENT)
    ] = None
    conditions: Annotated[meta.Conditions, meta.AGENT_CONDITIONS] = ()


class EdgePolicy(meta.Resource):
    """EdgePolicy says what a data owner lets run on an edge; without one, nothing runs."""

    INFO = meta.ResourceInfo(
        kind="EdgePolicy",
        plural="edgepolicies",
        short_names=("epol",),
        namespaced=True,
        columns=(
            meta.Column("Enforced", '.status.conditions[?(@.type=="Enforced")].status'),
            meta.Column("Reason", '.status.conditions[?(@.type=="Enforced")].reason'),
            meta.Column("Age", ".metadata.creationTimestamp", type="date"),
        ),
    )

    kind: Literal["EdgePolicy"] = "EdgePolicy"
    spec: Annotated[EdgePolicySpec, Doc("is the owner's rules.", Change.ANY_TIME)] = EdgePolicySpec()
    status: Annotated[EdgePolicyStatus | None, Doc("is what the edge agent says of it.", Change.BY_AGENT)] = (
        None
    )
