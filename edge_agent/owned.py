"""The owner's objects in a namespace: from what the API server holds to what is offered and allowed, and
back to what their statuses say.

Pure. Validated with the same models as files. What cannot be read errs on the owner's side: a data set is
not offered, a policy denies everything. This module refuses to know how objects are watched.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from edge_agent import buckets, offers, resources, rules, volumes
from federation.api import dataset as datasets
from federation.api import errors, meta, reasons, validation
from federation.api import policy as policies

Reason = reasons.EdgeDatasetReason
Object = Mapping[str, Any]
R = TypeVar("R", bound=meta.Resource)


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """What was seen of one data set's volume; `there` is None where nobody can look.

    fetch:  the name of what was wanted fetched when it was looked at; empty for what lies elsewhere.
    coming: it is not there yet, and who waits will have it.
    """

    there: bool | None = None
    message: str = ""
    reason: Reason = Reason.VOLUME_NOT_FOUND
    fetch: str = ""
    coming: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Owned:
    """The owner's objects as read.

    shadowed: data sets by object name whose spec.name an older one has, with that one's name.
    """

    datasets: tuple[datasets.EdgeDataset, ...] = ()
    policies: tuple[policies.EdgePolicy, ...] = ()
    shadowed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read(found_datasets: Iterable[Object], found_policies: Iterable[Object]) -> Owned:
    """Read what the API server holds; what is being deleted counts as gone."""
    unreadable: dict[str, str] = {}
    read_datasets: list[datasets.EdgeDataset] = []
    read_policies: list[policies.EdgePolicy] = []
    for found in _present(found_datasets):
        try:
            read_datasets.append(_parsed(found, datasets.EdgeDataset))
        except errors.ManifestError as error:
            unreadable[f"EdgeDataset {found['metadata']['name']}"] = str(error)
    for found in _present(found_policies):
        try:
            read_policies.append(_parsed(found, policies.EdgePolicy))
        except errors.ManifestError as error:
            unreadable[f"EdgePolicy {found['metadata']['name']}"] = str(error)
            read_policies.append(_denying(found))
    read_datasets.sort(key=lambda one: (_age(one), one.name))
    first: dict[str, str] = {}
    shadowed = {}
    for dataset in read_datasets:
        if first.setdefault(dataset.spec.name, dataset.name) != dataset.name:
            shadowed[dataset.name] = first[dataset.spec.name]
    return Owned(tuple(read_datasets), tuple(read_policies), shadowed, unreadable)


def declared(owned: Owned, seen: Mapping[str, Volume]) -> resources.Resources:
    """Return what is offered and allowed; `seen` is what was seen of volumes, by object name."""
    found = {
        dataset.spec.name: _offer(dataset, seen.get(dataset.name, Volume()))
        for dataset in owned.datasets
        if dataset.name not in owned.shadowed
    }
    return resources.Resources(tuple(found[name] for name in sorted(found)), owned.policies)


def dataset_status(
    dataset: datasets.EdgeDataset, owned: Owned, seen: Volume, used_by: Sequence[str], now: dt.datetime
) -> datasets.EdgeDatasetStatus:
    """Return what the owner should see of a data set; `used_by` are trainings, NAMESPACE/NAME."""
    shadow = owned.shadowed.get(dataset.name)
    in_use = bool(used_by) and shadow is None
    status, reason, message = _availability(dataset, shadow, seen)
    return datasets.EdgeDatasetStatus(
        observed_generation=dataset.metadata.generation,
        conditions=_conditions(
            dataset.status.conditions if dataset.status else (),
            dataset.metadata.generation,
            now,
            (reasons.EdgeDatasetCondition.AVAILABLE, status, reason, message),
            (
                reasons.EdgeDatasetCondition.IN_USE,
                meta.ConditionStatus.TRUE if in_use else meta.ConditionStatus.FALSE,
                Reason.TRAINING_RUNS if in_use else Reason.NO_TRAINING,
                f"in use by {', '.join(sorted(used_by)[:8])}" if in_use else "no client has it mounted",
            ),
        ),
    )


def policy_status(policy: policies.EdgePolicy, now: dt.datetime) -> policies.EdgePolicyStatus:
    """Return what the owner should see of a policy."""
    broken = next((rule for rule in rules.read(policy) if rule.unusable), None)
    count = len(policy.spec.rules)
    status, reason, message = (
        (meta.ConditionStatus.TRUE, reasons.EdgePolicyReason.VALID, f"the agent decides by its {count} rules")
        if broken is None
        else (
            meta.ConditionStatus.FALSE,
            reasons.EdgePolicyReason.INVALID_RULE,
            f"rule {broken.name} cannot be enforced: {broken.unusable}; correct it, until then this policy "
            "allows nothing",
        )
    )
    return policies.EdgePolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=_conditions(
            policy.status.conditions if policy.status else (),
            policy.metadata.generation,
            now,
            (reasons.EdgePolicyCondition.ENFORCED, status, reason, message),
        ),
    )


def _offer(dataset: datasets.EdgeDataset, seen: Volume) -> offers.Offer:
    spec = dataset.spec
    offer = offers.Offer(
        name=spec.name, examples=spec.declare.examples, labels=spec.labels, node_config=spec.node_config
    )
    try:
        mount = volumes.mount(dataset)
    except volumes.NotMountable as error:
        return dataclasses.replace(offer, unavailable=str(error))
    seen = _of_this_fetch(dataset, seen)
    if seen.there is False:
        return dataclasses.replace(offer, unavailable=seen.message, coming=seen.coming)
    return dataclasses.replace(offer, mount=mount)


def _of_this_fetch(dataset: datasets.EdgeDataset, seen: Volume) -> Volume:
    """Return what was seen, unless that was before the owner asked for other objects."""
    fetch = buckets.of(dataset)
    if fetch is None or seen.fetch == fetch.name:
        return seen
    return Volume(False, buckets.being_fetched(fetch), Reason.FETCHING, fetch.name, coming=True)


def _availability(
    dataset: datasets.EdgeDataset, shadow: str | None, seen: Volume
) -> tuple[meta.ConditionStatus, Reason, str]:
    false = meta.ConditionStatus.FALSE
    if shadow is not None:
        message = (
            f"EdgeDataset {shadow} is older and has the name {dataset.spec.name}; choose another spec.name"
        )
        return false, Reason.NAME_TAKEN, message
    try:
        volumes.mount(dataset)
    except volumes.NotMountable as error:
        return false, Reason.VOLUME_NOT_SUPPORTED, str(error)
    seen = _of_this_fetch(dataset, seen)
    if seen.there is None:
        return meta.ConditionStatus.UNKNOWN, Reason.VOLUME_NOT_LOOKED_AT, "its first client will show it"
    if not seen.there:
        return false, seen.reason, seen.message
    return meta.ConditionStatus.TRUE, Reason.VOLUME_FOUND, seen.message or "clients mount it read-only"


def _conditions(
    before: Iterable[meta.Condition],
    generation: int | None,
    now: dt.datetime,
    *wanted: tuple[str, meta.ConditionStatus, str, str],
) -> tuple[meta.Condition, ...]:
    conditions = tuple(before)
    for type_, status, reason, message in wanted:
        conditions = meta.set_condition(
            conditions,
            meta.Condition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=now,
                observed_generation=generation,
            ),
        )
    return conditions


def _present(found: Iterable[Object]) -> list[Object]:
    return [one for one in found if not one["metadata"].get("deletionTimestamp")]


def _parsed(found: Object, kind: type[R]) -> R:
    try:
        resource = validation.parse(found, "the cluster")
    except errors.ManifestError:
        # What another version says in a status must not make the spec unreadable.
        without = {key: value for key, value in found.items() if key != "status"}
        resource = validation.parse(without, "the cluster")
    assert isinstance(resource, kind)
    return resource


def _denying(found: Object) -> policies.EdgePolicy:
    name = str(found["metadata"]["name"])
    deny = policies.PolicyRule(name="not-readable", effect=policies.Effect.DENY)
    metadata = meta.ObjectMeta.model_validate(found["metadata"])
    return policies.EdgePolicy(
        metadata=metadata.model_copy(update={"name": name}), spec=policies.EdgePolicySpec(rules=(deny,))
    )


def _age(resource: meta.Resource) -> dt.datetime:
    return resource.metadata.creation_timestamp or dt.datetime.max.replace(tzinfo=dt.UTC)
