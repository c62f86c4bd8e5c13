"""May this training run here, now? The owner's EdgePolicy objects decide, and every answer says why.

A training runs if one rule allows it and none denies it; without a policy object nothing runs. Adding a
Deny rule never allows more, and the order of policies and rules never matters. This module refuses to know
where policies come from, what a client is and what time it is; `now` is an argument.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
from collections.abc import Callable, Mapping, Sequence

from edge_agent import rules, schedules
from federation.api import globs, meta, reasons
from federation.api import policy as api

_Reason = reasons.ClusterReason


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What the hub asks for, as this cluster understands it.

    hub, cluster:         names; the cluster is this one and speaks in messages.
    strategy:             its class name; empty for an app that brings its own ServerApp.
    rounds:               0 when the training does not say.
    requests, limits:     Kubernetes quantities by resource name (cpu, memory, nvidia.com/gpu, ...).
    privacy:              the training's spec.privacy, as it stands on the wire.
    declared_examples:    of the data set, None if not declared.
    app_signers:          names of the keys whose signature of the app was verified.
    """

    hub: str
    cluster: str
    namespace: str
    training: str
    dataset: str
    app_digest: str
    image: str
    strategy: str = ""
    rounds: int = 0
    requests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    privacy: Mapping[str, object] = dataclasses.field(default_factory=dict)
    declared_examples: int | None = None
    app_signers: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Allowed:
    """The training may run; `limits` are the client's, the rule's ceilings where none was asked."""

    rule: str
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The training may not run; `rule` is empty where no rule speaks about it."""

    reason: reasons.ClusterReason
    rule: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """The training may run later: at `until` if that is known (UTC), else when the owner acts."""

    reason: reasons.ClusterReason
    rule: str
    until: dt.datetime | None
    message: str


Decision = Allowed | Refused | Waiting


@dataclasses.dataclass(frozen=True, slots=True)
class _Finding:
    reason: reasons.ClusterReason
    message: str
    waits: bool = False
    until: dt.datetime | None = None


_Check = Callable[[Request, rules.Rule, dt.datetime], _Finding | None]


def decide(request: Request, policies: Sequence[api.EdgePolicy], now: dt.datetime) -> Decision:
    """Decide by all rules of all policies; `now` is aware.

    Law: a Deny rule more never turns a Refused or Waiting into an Allowed; order does not matter.
    """
    return decide_by_rules(
        request, [rule for policy in policies for rule in rules.read(policy)], now, len(policies)
    )


def decide_by_rules(
    request: Request, candidates: Sequence[rules.Rule], now: dt.datetime, policies: int = 1
) -> Decision:
    """Decide by rules as they were read; `policies` is how many objects they came from."""
    if policies == 0:
        message = (
            f"{request.cluster} has no EdgePolicy, so nothing runs there; "
            f"ask its owner to allow {request.namespace}/{request.training} in one"
        )
        return Refused(_Reason.NO_POLICY, "", message)
    ordered = sorted(candidates, key=lambda rule: (rule.policy, rule.name, repr(rule)))
    for rule in ordered:
        if rule.denies and (rule.unusable or _applies(request, rule, now)):
            return Refused(_Reason.POLICY_DENIED, rule.name, _denial(request, rule))
    closest: tuple[tuple[object, ...], rules.Rule, _Finding] | None = None
    for rule in ordered:
        if rule.denies:
            continue
        depth, finding = _first_finding(request, rule, now)
        if finding is None:
            return Allowed(rule.name, _granted(request, rule))
        # The rule that fails latest is closest; of two that wait, the one that opens first.
        rank = (-depth, finding.until or dt.datetime.max.replace(tzinfo=dt.UTC))
        if closest is None or rank < closest[0]:
            closest = (rank, rule, finding)
    if closest is None:
        message = (
            f"no policy of {request.cluster} has a rule that allows anything; "
            f"ask its owner for an Allow rule for {request.namespace}/{request.training}"
        )
        return Refused(_Reason.POLICY_DENIED, "", message)
    _, rule, finding = closest
    message = f"policy {rule.name} of {request.cluster} {finding.message}"
    if finding.waits:
        return Waiting(finding.reason, rule.name, finding.until, message)
    return Refused(finding.reason, rule.name, message)


def _first_finding(request: Request, rule: rules.Rule, now: dt.datetime) -> tuple[int, _Finding | None]:
    for depth, check in enumerate(_CHECKS):
        finding = check(request, rule, now)
        if finding is not None:
            return depth, finding
    return len(_CHECKS), None


def _applies(request: Request, rule: rules.Rule, now: dt.datetime) -> bool:
    # What a Deny rule states selects what it denies. Limits, privacy and approval select nothing: a rule that
    # only states those denies everything, which errs on the owner's side.
    selects = (_training, _dataset, _image, _app, _strategy)
    if any(check(request, rule, now) is not None for check in selects):
        return False
    return rule.windows is None or schedules.is_open(rule.windows, now)


def _denial(request: Request, rule: rules.Rule) -> str:
    if rule.unusable:
        return f"policy {rule.name} of {request.cluster} cannot be enforced: {rule.unusable}; ask its owner"
    stated = [
        f"trainings {_one_of([f'{match.namespace}/{match.name} of {match.hub}' for match in rule.trainings])}"
        if rule.trainings is not None
        else "",
        f"data sets {_one_of(rule.datasets)}" if rule.datasets is not None else "",
        f"images {_images(rule.images)}" if rule.images is not None else "",
        f"apps with digest {_one_of(rule.digests)}" if rule.digests is not None else "",
        f"apps signed by {_one_of(rule.signers)}" if rule.signers is not None else "",
        f"strategies {_one_of(rule.strategies)}" if rule.strategies is not None else "",
        f"it during {_one_of([window.text for window in rule.windows])}" if rule.windows is not None else "",
    ]
    what = ", ".join(part for part in stated if part) or "everything"
    return f"policy {rule.name} of {request.cluster} denies {what}; ask its owner to change it"


def _usable(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.unusable is None:
        return None
    return _Finding(
        _Reason.POLICY_DENIED, f"cannot be enforced: {rule.unusable}; ask its owner to correct it"
    )


def _training(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.trainings is None or any(
        globs.matches(match.hub, request.hub)
        and globs.matches(match.namespace, request.namespace)
        and globs.matches(match.name, request.training)
        for match in rule.trainings
    ):
        return None
    allowed = _one_of([f"{match.namespace}/{match.name} of {match.hub}" for match in rule.trainings])
    return _Finding(
        _Reason.POLICY_DENIED,
        f"allows trainings {allowed} only, not {request.namespace}/{request.training} of {request.hub}; "
        "ask its owner or use an allowed name",
    )


def _dataset(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.datasets is None or request.dataset in rule.datasets:
        return None
    return _Finding(
        _Reason.POLICY_DENIED,
        f"allows data sets {_one_of(rule.datasets)} only, "
        f"not {request.dataset}; ask its owner or use an allowed one",
    )


def _image(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.images is None or any(globs.matches(pattern, request.image) for pattern in rule.images):
        return None
    return _Finding(
        _Reason.IMAGE_NOT_ALLOWED,
        f"allows images {_images(rule.images)} only; ask its owner or use an allowed image",
    )


def _app(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.digests is not None and request.app_digest not in rule.digests:
        return _Finding(
            _Reason.APP_NOT_ALLOWED,
            f"allows apps with digest {_one_of(rule.digests)} only, and this one is "
            f"{request.app_digest or 'without a digest'}; ask its owner to review and add it",
        )
    if rule.signers is not None and not request.app_signers & set(rule.signers):
        return _Finding(
            _Reason.APP_NOT_ALLOWED,
            f"allows apps signed by {_one_of(rule.signers)} only; have the app signed or ask its owner",
        )
    return None


def _strategy(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.strategies is None or any(
        globs.matches(pattern, request.strategy) for pattern in rule.strategies
    ):
        return None
    asked = request.strategy or "a ServerApp of the app's own"
    return _Finding(
        _Reason.STRATEGY_NOT_ALLOWED,
        f"allows strategies {_one_of(rule.strategies)} only, "
        f"not {asked}; ask its owner or use an allowed one",
    )


def _privacy(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.maximum_epsilon is None:
        return None
    demand = f"demands differential privacy with an epsilon of at most {_plain(rule.maximum_epsilon)}"
    epsilon = rules.promised_epsilon(request.privacy)
    if epsilon is None:
        return _Finding(
            _Reason.PRIVACY_INSUFFICIENT, f"{demand}, and the training promises none; set spec.privacy"
        )
    if epsilon <= rule.maximum_epsilon:
        return None
    return _Finding(
        _Reason.PRIVACY_INSUFFICIENT,
        f"{demand}, and the training promises {_plain(epsilon)}; lower it in spec.privacy or ask its owner",
    )


def _limits(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    for resource, ceiling in sorted(rule.ceilings.items()):
        most = meta.quantity(ceiling)
        for wishes in (request.requests, request.limits):
            wish = wishes.get(resource)
            if wish is None:
                continue
            try:
                within = meta.quantity(wish) <= most
            except ValueError as error:
                return _Finding(
                    _Reason.LIMIT_EXCEEDED, f"limits {resource}, and {error}; correct spec.client.resources"
                )
            if not within:
                return _Finding(
                    _Reason.LIMIT_EXCEEDED,
                    f"allows {ceiling} of {resource}, and the training asks for {wish}; "
                    "lower spec.client.resources or ask its owner",
                )
    if rule.maximum_rounds is not None:
        most_rounds = f"allows {rule.maximum_rounds} rounds"
        if request.rounds == 0:
            return _Finding(
                _Reason.LIMIT_EXCEEDED,
                f"{most_rounds}, and the training does not say how many it takes; "
                "set num-server-rounds in spec.app.runConfig or ask its owner",
            )
        if request.rounds > rule.maximum_rounds:
            return _Finding(
                _Reason.LIMIT_EXCEEDED,
                f"{most_rounds}, and the training asks for {request.rounds}; ask for fewer or ask its owner",
            )
    return None


def _examples(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.minimum_examples is None:
        return None
    demand = f"demands at least {rule.minimum_examples} examples"
    if request.declared_examples is None:
        return _Finding(
            _Reason.TOO_FEW_EXAMPLES,
            f"{demand}, and data set {request.dataset} declares none; "
            "its owner can set spec.declare.examples",
        )
    if request.declared_examples >= rule.minimum_examples:
        return None
    return _Finding(
        _Reason.TOO_FEW_EXAMPLES,
        f"{demand}, and data set {request.dataset} has {request.declared_examples}; "
        "ask its owner to lower limits.minimumExamples or to add data",
    )


def _schedule(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    if rule.windows is None or schedules.is_open(rule.windows, now):
        return None
    until = schedules.next_opening(rule.windows, now)
    zone = rule.windows[0].zone if rule.windows else dt.UTC
    opening = f"at {until.astimezone(zone):%Y-%m-%d %H:%M} {zone}" if until else "never"
    return _Finding(
        _Reason.OUTSIDE_SCHEDULE,
        f"is open during {_one_of([window.text for window in rule.windows])} only; it opens next {opening}",
        waits=True,
        until=until,
    )


def _approval(request: Request, rule: rules.Rule, now: dt.datetime) -> _Finding | None:
    training = f"{request.namespace}/{request.training}"
    if not rule.manual_approval or training in rule.approved:
        return None
    return _Finding(
        _Reason.APPROVAL_NEEDED,
        f"asks for the owner's approval of {training}; the owner gives it by adding {training} to the "
        f"annotation {rules.APPROVAL_ANNOTATION} of EdgePolicy {rule.policy}",
        waits=True,
    )


_CHECKS: tuple[_Check, ...] = (
    _usable,
    _training,
    _dataset,
    _image,
    _app,
    _strategy,
    _privacy,
    _limits,
    _examples,
    _schedule,
    _approval,
)
"""In this order a rule is checked: what names the training first, what time can heal last."""


def _granted(request: Request, rule: rules.Rule) -> dict[str, str]:
    return {**rule.ceilings, **request.limits}


def _one_of(names: Sequence[str]) -> str:
    if not names:
        return "in an empty list"
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]


def _images(patterns: Sequence[str]) -> str:
    """Say `of registry.example` where every pattern is a whole registry or repository, else the patterns."""
    places = [pattern.removesuffix("/*") for pattern in patterns]
    whole = [pattern.endswith("/*") and "*" not in pattern[:-2] for pattern in patterns]
    if whole and all(whole):
        return f"of {_one_of(places)}"
    return _one_of(patterns)


def _plain(number: decimal.Decimal) -> str:
    return f"{number.normalize():f}"
