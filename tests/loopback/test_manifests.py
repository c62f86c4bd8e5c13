"""The manifests on a real API server: it takes each of them, and grants what docs/permissions.md says."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from coordinator.cli import edge_manifests
from coordinator.clients import cluster_objects
from federation.kube import client, errors
from tests.fakes import controlplane, kubectl, permissions
from tests.fakes import foreign_kinds as foreign

pytestmark = pytest.mark.controlplane

MANIFESTS = pathlib.Path(__file__).parents[2] / "manifests"
INSTALLATIONS = ("hub/base", "hub/lab", "hub/loadbalancer", "edge/base", "edge/lab")
AGENT = "system:serviceaccount:hanse:hanse-agent"
COORDINATOR = "system:serviceaccount:hanse-system:hanse-coordinator"
VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
    "impersonate", "bind", "escalate", "approve", "sign", "use",
)  # fmt: skip


@pytest.fixture(scope="module")
def rendered(control_plane: controlplane.ControlPlane) -> dict[str, list[dict[str, Any]]]:
    """Every installation as kustomize renders it; namespaces and permissions of both sides are applied."""
    found = {name: kubectl.rendered(MANIFESTS / name) for name in INSTALLATIONS}

    async def apply() -> None:
        kinds = ("Namespace", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding",
                 "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")  # fmt: skip
        async with await client.Client.connect(control_plane.kubeconfig) as api:
            for kind in kinds:
                for manifest in (*found["hub/base"], *found["edge/base"]):
                    if manifest["kind"] == kind:
                        await api.apply(manifest)

    asyncio.run(apply())
    return found


@pytest.mark.parametrize("installation", INSTALLATIONS)
async def test_the_server_takes_every_object(
    api: client.Client, rendered: dict[str, list[dict[str, Any]]], installation: str
) -> None:
    """Server-side dry run with strict field validation accepts all that `kubectl apply -k` would send."""
    assert {m["kind"] for m in rendered[installation]} >= {"Namespace", "Deployment", "NetworkPolicy"}
    for manifest in rendered[installation]:
        await api.apply(manifest, dry_run=True)


@pytest.fixture(scope="module")
def foreign_kinds(control_plane: controlplane.ControlPlane, rendered: object) -> None:
    """The API server has Gateway API's TLSRoute and cert-manager's Issuer and Certificate, too."""
    try:
        foreign.apply(control_plane)
    except foreign.NotToBeHad as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("foreign_kinds")
async def test_the_server_takes_a_hub_behind_a_gateway(api: client.Client) -> None:
    """It knows TLSRoute as Gateway API defines it, and would refuse a field that is none."""
    found = permissions.by_kind_and_name(kubectl.rendered(MANIFESTS / "hub/gateway-api"))
    for manifest in found.values():
        await api.apply(manifest, dry_run=True)
    route = found["TLSRoute", "hanse-door"]
    with pytest.raises(errors.Invalid, match=r"spec\.sni"):
        await api.apply({**route, "spec": {**route["spec"], "sni": "hub"}}, dry_run=True)


@pytest.mark.usefixtures("foreign_kinds")
async def test_an_overlay_of_a_hub_of_ones_own(api: client.Client, tmp_path: pathlib.Path) -> None:
    """The overlay of manifests/README.md: cert-manager owns the CA, images come from one's own registry."""
    _write_overlay_of_the_page(tmp_path)
    found = permissions.by_kind_and_name(kubectl.rendered(tmp_path))
    assert '"create_ca": false' in found["ConfigMap", "hanse-coordinator"]["data"]["config.json"]
    assert found["Certificate", "hanse-ca"]["spec"]["secretName"] == "hanse-ca"
    assert found["Service", "hanse-door"]["spec"]["type"] == "LoadBalancer"
    pod = found["Deployment", "hanse-coordinator"]["spec"]["template"]["spec"]
    images = {container["image"] for container in (*pod["initContainers"], *pod["containers"])}
    images |= {entry["value"] for entry in pod["containers"][0]["env"] if "IMAGE" in entry["name"]}
    assert {image.partition(":")[0] for image in images} == {
        "registry.local/hanse/coordinator", "registry.local/hanse/client",
    }  # fmt: skip
    for manifest in found.values():
        await api.apply(manifest, dry_run=True)
    certificate = found["Certificate", "hanse-ca"]
    with pytest.raises(errors.Invalid, match=r"spec\.rotation"):
        await api.apply({**certificate, "spec": {**certificate["spec"], "rotation": "Never"}}, dry_run=True)


async def test_what_join_applies_is_what_kustomize_makes(
    api: client.Client, rendered: dict[str, list[dict[str, Any]]]
) -> None:
    """`hanse join` has the objects of manifests/edge, and the invitation; so the two ways to join are one."""
    for installation, registry, hub in (
        ("edge/base", None, "hub.example.org:443"),
        ("edge/lab", "localhost/hanse", "172.30.0.10:30443"),
    ):
        invitation = edge_manifests.Invitation(
            hub, "hanse_abcdefgh." + "x" * 43, "sha256:" + "ab" * 32, "zurich"
        )
        joined = permissions.by_kind_and_name(edge_manifests.agent(invitation, registry=registry))
        kustomized = permissions.by_kind_and_name(rendered[installation])
        invited = permissions.by_kind_and_name(edge_manifests.invitation_manifests(invitation))
        assert joined == {**kustomized, **invited}
        assert invited.keys() == {
            ("ConfigMap", "hanse-agent"), ("Secret", "hanse-join"), ("NetworkPolicy", "hanse-agent-door"),
        }  # fmt: skip
        assert not invited.keys() & kustomized.keys()
        for manifest in joined.values():
            await api.apply(manifest, dry_run=True)


@pytest.mark.slow
async def test_the_agent_may_do_what_the_page_says(api: client.Client, rendered: object) -> None:
    """Every verb on every resource of the server, in the agent's namespace, elsewhere and cluster-wide."""
    assert await _may(api, AGENT, "hanse") == permissions.documented("edge agent in hanse")
    assert await _may(api, AGENT, "default") == frozenset()
    assert await _may(api, AGENT, "") == frozenset()


@pytest.mark.slow
async def test_the_coordinator_may_do_what_the_page_says(api: client.Client, rendered: object) -> None:
    """The same for the coordinator, in its own namespace and in others."""
    everywhere = permissions.documented("coordinator")
    assert await _may(api, COORDINATOR, "default") == everywhere
    own = permissions.documented("coordinator in hanse-system")
    assert await _may(api, COORDINATOR, "hanse-system") == everywhere | own


@pytest.mark.slow
async def test_a_pod_without_a_token_may_do_nothing(api: client.Client, rendered: object) -> None:
    """The account of clients has no permission at all, nor has that of aggregators where one trains."""
    for namespace in ("hanse", "hanse-system", "default"):
        assert await _may(api, f"system:serviceaccount:{namespace}:default", namespace) == frozenset()
    await cluster_objects.ClusterObjects(api).ensure_account("default")
    account = await api.get("ServiceAccount", cluster_objects.AGGREGATOR_ACCOUNT, "default")
    assert account["automountServiceAccountToken"] is False
    aggregator = f"system:serviceaccount:default:{cluster_objects.AGGREGATOR_ACCOUNT}"
    for namespace in ("default", "hanse-system", ""):
        assert await _may(api, aggregator, namespace) == frozenset()


@pytest.mark.parametrize("kind", ["federatedtrainings", "edgedatasets", "edgepolicies"])
async def test_who_may_edit_a_namespace_may_have_trainings_and_data_sets_in_it(
    api: client.Client, rendered: object, kind: str
) -> None:
    """The cluster's own roles `view` and `edit` reach what Hanse adds, in their namespace and not beyond."""
    for role in ("edit", "view"):
        await api.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": "hanse"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
            }
        )

    async def may(user: str, verb: str, *, subresource: str = "", namespace: str = "hanse") -> bool:
        attributes = {
            "group": "hanse.dev", "resource": kind, "subresource": subresource, "verb": verb,
            "namespace": namespace,
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        return bool((await api.create(review))["status"]["allowed"])

    async with asyncio.timeout(60):  # a controller puts the roles together
        while not (await may("edit", "create") and await may("view", "list")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert await may("edit", "delete") and not await may("view", "create")
    assert not await may("edit", "patch", subresource="status")
    assert not await may("edit", "create", namespace="default")


async def test_the_coordinator_touches_only_its_own(
    api: client.Client, control_plane: controlplane.ControlPlane, rendered: object
) -> None:
    """In a training's namespace others' Secrets are closed to it, also to a patch that would show them."""
    name = "cardiology-guarded"
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await api.create(_secret(name, "theirs", {}))

    def as_coordinator(
        *arguments: str, manifest: client.Object | None = None
    ) -> subprocess.CompletedProcess[str]:
        if manifest is not None:
            path = control_plane.directory / "guarded.json"
            path.write_text(json.dumps(manifest))
            arguments = (*arguments, "-f", str(path))
        return kubectl.run(
            f"--as={COORDINATOR}", f"--namespace={name}", *arguments, kubeconfig=control_plane.kubeconfig
        )

    # Server-side apply is one patch, and its answer is the whole object.
    peek = ("apply", "--server-side", "-ojson")
    nothing = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs", "namespace": name}}
    async with asyncio.timeout(60):  # a policy holds a moment after it was written
        while (refused := await asyncio.to_thread(as_coordinator, *peek, manifest=nothing)).returncode == 0:
            continue
    assert "writes only objects labelled app.kubernetes.io/managed-by=hanse" in refused.stderr
    assert "value" not in refused.stdout
    ours = {"app.kubernetes.io/managed-by": "hanse"}
    stolen = as_coordinator(*peek, manifest=_secret(name, "theirs", ours))
    assert stolen.returncode != 0 and "labelled" in stolen.stderr
    for refusal in (
        as_coordinator("delete", "secret", "theirs", "--wait=false"),
        as_coordinator("get", "secret", "theirs"),
        as_coordinator("create", "secret", "generic", "unlabelled"),
    ):
        assert refusal.returncode != 0 and "forbidden" in refusal.stderr, refusal
    assert (await api.get("Secret", "theirs", name))["metadata"].get("labels") is None

    made = as_coordinator("create", manifest=_secret(name, "ours", ours))
    assert made.returncode == 0, made.stderr
    deleted = as_coordinator("delete", "secret", "ours", "--wait=false")
    assert deleted.returncode == 0, deleted.stderr
    with pytest.raises(errors.NotFound):
        await api.get("Secret", "ours", name)


async def test_nobody_passes_his_job_off_as_an_aggregator(
    api: client.Client, control_plane: controlplane.ControlPlane, rendered: object
) -> None:
    """Whoever may do everything in one namespace may not label his Jobs as the coordinator's."""
    name = "cardiology-forger"
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "forger", "namespace": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "forger"}],
    }
    await api.create(binding)

    def as_forger(labels: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        template = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "i"}]}
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "aggregator-of-others", "namespace": name, "labels": labels},
            "spec": {"suspend": True, "template": {"spec": template}},
        }
        path = control_plane.directory / "forged.json"
        path.write_text(json.dumps(manifest))
        return kubectl.run("--as=forger", *arguments, "-f", str(path), kubeconfig=control_plane.kubeconfig)

    forged = {"app.kubernetes.io/managed-by": "hanse", "hanse.dev/runtime": "coordinator"}
    async with asyncio.timeout(60):  # a policy, and a right, hold a moment after they were written
        while (
            "only the coordinator"
            not in (
                refused := await asyncio.to_thread(as_forger, forged, "create", "--dry-run=server")
            ).stderr
        ):
            assert "ValidatingAdmissionPolicy" not in refused.stderr, refused.stderr
    plain = as_forger({}, "create")
    assert plain.returncode == 0, plain.stderr
    later = as_forger(forged, "apply", "--server-side", "--force-conflicts")
    assert later.returncode != 0 and "only the coordinator of Hanse labels Jobs" in later.stderr
    again = as_forger({"app": "x"}, "apply", "--server-side", "--force-conflicts")
    assert again.returncode == 0, again.stderr


async def test_parameters_of_a_strategy_stay(api: client.Client, rendered: object) -> None:
    """A raise of the rounds takes no other parameters along: a policy sees them, CEL in a CRD does not."""
    where, app = "raised", {"source": {"image": {"clientApp": "tiny:client"}}}
    strategy = {"name": "FedAdam", "rounds": 3, "parameters": {"eta": 1, "fraction-train": 0.5}}
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where}})
    await api.create(
        {
            "apiVersion": "hanse.dev/v1alpha1",
            "kind": "FederatedTraining",
            "metadata": {"name": "hospitals", "namespace": where},
            "spec": {"app": app, "dataset": "heart", "strategy": strategy},
        }
    )

    async def change(**strategy: Any) -> str:
        try:
            await api.patch("FederatedTraining", "hospitals", where, {"spec": {"strategy": strategy}})
        except errors.Invalid as error:
            return str(error)
        return ""

    async with asyncio.timeout(60):  # a policy holds a moment after it was written
        for number in itertools.count(4):
            if why := await change(rounds=number, parameters={"eta": number}):
                break
    want = "parameters cannot change after creation; create another FederatedTraining instead"
    assert want in why
    assert want in await change(parameters={"fraction-train": None})
    assert not await change(rounds=number)
    assert not await change(rounds=number + 1, parameters={"fraction-train": 0.5})
    await api.delete("FederatedTraining", "hospitals", where)  # no hub of another test is to run it


def _write_overlay_of_the_page(directory: pathlib.Path) -> None:
    page = (MANIFESTS / "README.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    where = os.path.relpath(MANIFESTS, directory)
    text = text.replace("github.com/YOUR/COPY/manifests", where).replace("YOUR.REGISTRY", "registry.local")
    (directory / "kustomization.yaml").write_text(text)
    shutil.copy(MANIFESTS / "release" / "image-fields.yaml", directory)


def _secret(namespace: str, name: str, labels: dict[str, str]) -> client.Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "stringData": {"key": "value"},
    }


async def _may(api: client.Client, user: str, namespace: str) -> permissions.Grants:
    """Ask for every verb on every resource; return what is allowed beyond everybody's rights."""
    groups = [
        "system:serviceaccounts",
        f"system:serviceaccounts:{user.split(':')[2]}",
        "system:authenticated",
    ]
    resources = await _resources(api)
    limit = asyncio.Semaphore(32)

    async def allowed(group: str, resource: str, verb: str, who: str) -> bool:
        name, _, subresource = resource.partition("/")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": who,
                "groups": groups if who == user else ["system:authenticated"],
                "resourceAttributes": {
                    "group": group, "resource": name, "subresource": subresource, "verb": verb,
                    "namespace": namespace,
                },
            },
        }  # fmt: skip
        async with limit:
            return bool((await api.create(review))["status"]["allowed"])

    asked = [
        (group, resource, verb)
        for group, resource in resources
        for verb in (("update",) if resource.endswith("/finalizers") else VERBS)
    ]
    answers = await asyncio.gather(*(allowed(*grant, user) for grant in asked))
    found = [grant for grant, yes in zip(asked, answers, strict=True) if yes]
    everybody = await asyncio.gather(*(allowed(*grant, "anybody") for grant in found))
    return frozenset(grant for grant, yes in zip(found, everybody, strict=True) if not yes)


async def _resources(api: client.Client) -> list[tuple[str, str]]:
    """Return every resource and subresource that the server has, with its group."""

    async def read(path: str) -> Any:
        async with api.http.answer("GET", path, what=f"discover {path}", verb="discover") as answer:
            return json.loads(await answer.read())

    groups = [group["preferredVersion"]["groupVersion"] for group in (await read("/apis"))["groups"]]
    found = [("", entry["name"]) for entry in (await read("/api/v1"))["resources"]]
    for version in groups:
        listing = await read(f"/apis/{version}")
        found += [(version.partition("/")[0], entry["name"]) for entry in listing["resources"]]
    # Asked for by some clusters of who names an owner; no path, so discovery does not know it.
    found += [(group, f"{name}/finalizers") for group, name in found if "/" not in name]
    assert len(found) > 80
    return found
