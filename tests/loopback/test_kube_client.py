"""The Kubernetes client against a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import pathlib

import pytest

from federation.kube import client, errors, leases
from tests.fakes import controlplane

pytestmark = pytest.mark.controlplane
_numbers = itertools.count(1)


@pytest.fixture
async def namespace(api: client.Client) -> str:
    """A namespace that no other test uses."""
    name = f"client-{next(_numbers)}"
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def config_map(namespace: str, name: str = "one", **data: str) -> client.Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "test"}},
        "data": data,
    }


def training(namespace: str, **spec: object) -> client.Object:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "hospitals", "namespace": namespace},
        "spec": {"app": {"source": {"path": "app"}}, "dataset": "heart-disease", **spec},
    }


async def test_an_object_is_created_read_listed_and_deleted(api: client.Client, namespace: str) -> None:
    """What is created is there, once, and gone after its deletion; each error has its own type."""
    created = await api.create(config_map(namespace, key="value"))
    assert await api.get("ConfigMap", "one", namespace) == created
    with pytest.raises(errors.AlreadyExists, match='configmaps "one" already exists'):
        await api.create(config_map(namespace))
    listing = await api.list("ConfigMap", namespace, labels="app=test")
    assert [item["metadata"]["name"] for item in listing.items] == ["one"]
    assert listing.items[0]["kind"] == "ConfigMap"
    with pytest.raises(errors.Conflict):
        await api.delete("ConfigMap", "one", namespace, uid="another")
    await api.delete("ConfigMap", "one", namespace, uid=created["metadata"]["uid"])
    with pytest.raises(errors.NotFound, match=f'get ConfigMap {namespace}/one: configmaps "one" not found'):
        await api.get("ConfigMap", "one", namespace)


async def test_a_list_of_several_pages_is_whole(
    api: client.Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are put together."""
    monkeypatch.setattr(client, "LIST_PAGE", 2)
    for number in range(5):
        await api.create(config_map(namespace, f"c{number}"))
    listing = await api.list("ConfigMap", namespace, labels="app=test")
    assert [item["metadata"]["name"] for item in listing.items] == ["c0", "c1", "c2", "c3", "c4"]


async def test_closing_leaves_no_socket_of_requests_that_were_given_up(
    control_plane: controlplane.ControlPlane,
) -> None:
    """In whatever turn of the event loop: while connecting, before the answer, while it is read."""

    def sockets() -> set[str]:
        found = set()
        for link in pathlib.Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the one that reads this directory
                found.add(str(link.readlink()))
        return {name for name in found if name.startswith("socket:")}

    before = sockets()
    for turns in range(0, 40, 4):
        async with await client.Client.connect(control_plane.kubeconfig) as api:
            await api.list("Namespace")
            asked = [asyncio.create_task(api.list("Secret", "kube-system")) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        assert not sockets() - before, turns


async def test_apply_names_the_other_manager_and_takes_its_field_by_force(
    api: client.Client, namespace: str
) -> None:
    """Without force a field of another manager is a conflict; with it, it becomes ours."""
    await api.apply(config_map(namespace, key="theirs"), field_manager="kubectl")
    with pytest.raises(errors.Conflict, match="kubectl"):
        await api.apply(config_map(namespace, key="ours"), force=False)
    assert (await api.apply(config_map(namespace, key="ours")))["data"] == {"key": "ours"}


async def test_a_refusal_is_in_the_servers_words(api: client.Client, namespace: str) -> None:
    """Unknown fields and broken rules come back with the field's name."""
    for write in (api.create, api.apply):
        with pytest.raises(errors.Invalid, match=r"spec\.rounds"):
            await write(training(namespace, rounds=3))
    with pytest.raises(errors.Invalid) as refused:
        await api.apply(training(namespace, dataset="Heart Disease"))
    assert [cause.field for cause in refused.value.causes] == ["spec.dataset"]


async def test_a_status_is_replaced_whole_and_only_at_its_version(api: client.Client, namespace: str) -> None:
    """A stale writer conflicts; an equal status writes nothing; what is no longer said is gone."""
    created = await api.create(training(namespace))
    version = created["metadata"]["resourceVersion"]
    place = ("FederatedTraining", "hospitals", namespace)
    first = await api.replace_status(*place, {"phase": "Running", "observedGeneration": 1}, version)
    again = await api.replace_status(*place, {"phase": "Running", "observedGeneration": 1})
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    with pytest.raises(errors.Conflict):
        await api.replace_status(*place, {"phase": "Failed"}, version)
    assert (await api.replace_status(*place, {"phase": "Failed"}))["status"] == {"phase": "Failed"}
    with pytest.raises(errors.Invalid, match=r"status\.phase"):
        await api.replace_status(*place, {"phase": "Dancing"})


async def test_a_watch_goes_on_where_the_list_ended(api: client.Client, namespace: str) -> None:
    """Every change after the list comes, in order, with its kind."""
    listing = await api.list("ConfigMap", namespace)
    await api.create(config_map(namespace, key="1"))
    await api.apply(config_map(namespace, key="2"), field_manager="test")
    await api.delete("ConfigMap", "one", namespace)
    watch = api.watch("ConfigMap", listing.resource_version, namespace, labels="app=test")
    changes = [await anext(watch) for _ in range(3)]
    assert [change.type for change in changes] == ["ADDED", "MODIFIED", "DELETED"]
    assert changes[1].object["data"] == {"key": "2"}
    assert changes[2].object["kind"] == "ConfigMap"
    assert api.requests["watch"] == 1


async def test_a_watch_is_renewed_without_losing_a_change(
    api: client.Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server ends a watch, the next goes on from the last version; nothing comes twice."""
    monkeypatch.setattr(client, "WATCH_SECONDS", (1.0, 1.0))
    listing = await api.list("ConfigMap", namespace, labels="app=test")
    watch = api.watch("ConfigMap", listing.resource_version, namespace, labels="app=test")
    names = []
    for number in range(3):
        coming = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(1.5)  # the server ends at least one watch meanwhile
        await api.create(config_map(namespace, f"c{number}"))
        names.append((await coming).object["metadata"]["name"])
    assert names == ["c0", "c1", "c2"]
    assert api.requests["watch"] > 1


async def test_a_version_that_is_no_longer_kept_is_gone(api: client.Client, namespace: str) -> None:
    """The caller lists again then."""
    with pytest.raises(errors.Gone, match="too old resource version"):
        await anext(api.watch("FederatedTraining", "1"))


async def test_who_may_do_what_is_asked_of_the_server(
    api: client.Client, control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    """Reviews answer for oneself and for others; a refusal is Forbidden."""
    assert await api.may("create", "Job", namespace)
    assert not await api.may("create", "Job", namespace, user="nobody")
    async with await client.Client.connect(control_plane.kubeconfig_for("nobody")) as nobody:
        assert not await nobody.may("get", "Secret", namespace)
        with pytest.raises(errors.Forbidden, match='User "nobody" cannot get'):
            await nobody.get("Secret", "any", namespace)


async def test_a_kind_that_the_table_lacks_is_asked_for_once(api: client.Client) -> None:
    """Discovery is remembered; a kind that nobody serves is not found."""
    for _ in range(2):
        assert (await api.kind("PriorityClass", "scheduling.k8s.io/v1")).plural == "priorityclasses"
    assert api.requests["discover"] == 1
    with pytest.raises(errors.NotFound):
        await api.kind("Nonesuch", "scheduling.k8s.io/v1")


async def test_a_token_file_is_read_again(
    control_plane: controlplane.ControlPlane, tmp_path: pathlib.Path
) -> None:
    """A token that was renewed serves the next request, though the old one was just refused."""
    text = control_plane.kubeconfig.read_text()
    token = text.rpartition("token:")[2].strip()
    (tmp_path / "token").write_text("stale")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(text.replace(f"token: {token}", "tokenFile: token"))
    async with await client.Client.connect(kubeconfig) as api:
        with pytest.raises(errors.Forbidden, match="does not know these credentials"):
            await api.version()
        (tmp_path / "token").write_text(token)
        assert (await api.version()).startswith("v1.")


async def test_a_server_that_is_away_is_unreachable_after_a_while(tmp_path: pathlib.Path) -> None:
    """The sentence says where nobody answered."""
    kubeconfig = tmp_path / "kubeconfig"
    controlplane._write_kubeconfig(kubeconfig, "http://127.0.0.1:9", "me", "token")
    async with await client.Client.connect(kubeconfig, patience_seconds=0.5) as api:
        with pytest.raises(errors.Unreachable, match=r"the API server at http://127\.0\.0\.1:9 does not"):
            await api.get("Pod", "a", "b")
    assert api.requests["get"] > 1


async def test_no_kubeconfig_is_said_before_anything_is_sent(tmp_path: pathlib.Path) -> None:
    """A wrong path, and a process that is in no pod, are one sentence."""
    with pytest.raises(errors.NotConfigured, match="there is no such file"):
        await client.Client.connect(tmp_path / "none")
    with pytest.raises(errors.NotConfigured, match="service account"):
        await client.Client.connect()


async def test_nothing_is_asked_that_is_not_allowed_any_more(
    control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    """A client of one that may act no longer is as one whose server is away, and so is a closed one."""
    allowed = True
    async with await client.Client.connect(control_plane.kubeconfig, allowed=lambda: allowed) as api:
        await api.create(config_map(namespace, key="value"))
        allowed, sent = False, sum(api.requests.values())
        with pytest.raises(errors.Unreachable, match="not asked any more"):
            await api.delete("ConfigMap", "one", namespace)
        assert sum(api.requests.values()) == sent
        allowed = True
        await api.get("ConfigMap", "one", namespace)
    with pytest.raises(errors.Unreachable, match="not asked any more"):
        await api.get("ConfigMap", "one", namespace)


async def test_two_contenders_for_one_lease_of_a_real_server(api: client.Client, namespace: str) -> None:
    """The server's own conflicts decide: one leads; when it gives up, the other does."""
    timing = leases.Timing(lease_seconds=3, renew_seconds=2, retry_seconds=0.2)

    def contender(identity: str) -> leases.Elector:
        return leases.Elector(
            api, namespace, "coordinator", identity, timing=timing, jitter=lambda: 0.5,
            now=lambda: dt.datetime.now(dt.UTC), monotonic=asyncio.get_running_loop().time,
        )  # fmt: skip

    electors = [contender("a"), contender("b")]
    tasks = [asyncio.create_task(elector.acquire()) for elector in electors]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), [elector.held for elector in electors].count(True)) == (1, 1)
    leader = electors[tasks.index(done.pop())]
    await leader.release()
    await asyncio.wait_for(waiting.pop(), 60)
    assert [elector.held for elector in electors].count(True) == 1
    assert not leader.held
