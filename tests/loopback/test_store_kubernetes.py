"""What only the store over Kubernetes does: the server's words, other owners' fields, Events with counts."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest

from federation.kube import client
from federation.store import kubernetes, port
from tests.unit.federation.api import test_validation

pytestmark = pytest.mark.controlplane
_numbers = itertools.count(1)


@pytest.fixture
async def namespace(api: client.Client) -> str:
    name = f"store-{next(_numbers)}"
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def store(api: client.Client) -> kubernetes.KubernetesStore:
    return kubernetes.KubernetesStore(
        api, component="hanse-test", now=lambda: dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    )


def training(namespace: str, **spec: object) -> port.Resource:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "hospitals", "namespace": namespace},
        "spec": {"app": {"source": {"path": "app"}}, "dataset": "heart-disease", **spec},
    }


async def test_a_refusal_carries_the_servers_words(store: kubernetes.KubernetesStore, namespace: str) -> None:
    """An unknown field, and a CEL rule, are told as the API server tells them."""
    with pytest.raises(port.RefusedError, match=r"spec\.rounds: field not declared"):
        await store.apply(training(namespace, rounds=3))
    await store.apply(training(namespace))
    with pytest.raises(port.RefusedError, match="cannot change after creation") as refused:
        await store.apply(training(namespace, app={"source": {"path": "other"}}))
    assert refused.value.causes[0][0].startswith("spec.app")


RULES = sorted(case for case in test_validation.BAD_TRAININGS if case.startswith("rule: "))


@pytest.mark.parametrize("case", RULES)
async def test_what_is_refused_without_kubernetes_is_refused_by_it(
    store: kubernetes.KubernetesStore, namespace: str, case: str
) -> None:
    """One rule for both, in the same words."""
    document, want = test_validation.BAD_TRAININGS[case]
    with pytest.raises(port.RefusedError) as refused:
        await store.apply({**document, "metadata": {**document["metadata"], "namespace": namespace}})
    assert want.partition(": ")[2] in str(refused.value)


async def test_another_owners_label_stays_and_our_own_goes(
    store: kubernetes.KubernetesStore, api: client.Client, namespace: str
) -> None:
    """Server-side apply removes what we no longer say, and nothing else."""
    ours = training(namespace)
    ours["metadata"]["labels"] = {"ours": "1"}
    await store.apply(ours)
    await api.patch("FederatedTraining", "hospitals", namespace, {"metadata": {"labels": {"theirs": "1"}}})
    read = await store.apply(training(namespace))
    assert read["metadata"]["labels"] == {"theirs": "1"}
    assert "managedFields" not in read["metadata"]


async def test_what_was_read_can_be_applied(store: kubernetes.KubernetesStore, namespace: str) -> None:
    """Versions, uids and status that came with a read do not get in the way."""
    await store.create(training(namespace))
    key = port.Key("FederatedTraining", namespace, "hospitals")
    read = await store.patch_status(key, {"phase": "Running"}, None)
    read["spec"]["dataset"] = "heart-disease"
    read["metadata"]["labels"] = {"a": "b"}
    assert (await store.apply(read))["metadata"]["labels"] == {"a": "b"}


async def test_repeated_events_are_one_with_a_count(
    store: kubernetes.KubernetesStore, api: client.Client, namespace: str
) -> None:
    """The same words count up; different words stand side by side up to a bound; describe finds them."""
    created = await store.create(training(namespace))
    key = port.key_of(created)
    for _ in range(3):
        await store.record_event(port.Event(key, port.EventType.WARNING, "QuorumNotReached", "Two of three."))
    for number in range(15):
        event = port.Event(key, port.EventType.NORMAL, "RoundCompleted", f"Round {number} ended.")
        await store.record_event(event)
    uid = created["metadata"]["uid"]
    found = (await api.list("Event", namespace, fields=f"involvedObject.uid={uid}")).items
    quorum = [event for event in found if event["reason"] == "QuorumNotReached"]
    assert [(event["count"], event["message"]) for event in quorum] == [(3, "Two of three.")]
    rounds = [event for event in found if event["reason"] == "RoundCompleted"]
    assert len(rounds) == 10
    assert max((event["count"], event["message"]) for event in rounds) == (6, "Round 14 ended.")


async def test_an_idle_store_makes_no_requests(
    store: kubernetes.KubernetesStore, api: client.Client, namespace: str
) -> None:
    """Following costs one list and one watch, and then nothing while nothing changes."""
    await store.create(training(namespace))
    seen = port.follow(store, "FederatedTraining")
    while port.key_of((await anext(seen)).resource).namespace != namespace:
        pass
    await store.delete(port.Key("FederatedTraining", namespace, "hospitals"))
    while (await anext(seen)).type is not port.ChangeType.DELETED:
        pass
    assert (api.requests["list"], api.requests["watch"]) == (1, 1)
