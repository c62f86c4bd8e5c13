"""What the manifests promise, read as files; a real API server's word on them is in tests/loopback."""

from __future__ import annotations

import datetime as dt
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator import config
from coordinator.cli import reach
from coordinator.issuing import certificate_authority
from federation.api import resources, training
from tests.fakes import permissions

ROOT = pathlib.Path(__file__).parents[3]
FILES = sorted((ROOT / "manifests").glob("**/*.yaml"))


def objects(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest and manifest.get("kind") not in ("Kustomization", "Component", None):
            yield manifest


def pod_specs() -> list[Any]:
    return [
        pytest.param(manifest["spec"]["template"]["spec"], id=manifest["metadata"]["name"])
        for file in FILES
        for manifest in objects(file)
        if manifest["kind"] == "Deployment"
    ]


@pytest.mark.parametrize("spec", pod_specs())
def test_pods_are_restricted(spec: dict[str, Any]) -> None:
    """Every container meets Pod Security `restricted`, has a read-only root, and bounds on its memory."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("side, namespace", [("hub", "hanse-system"), ("edge", "hanse")])
def test_a_namespace_is_restricted_and_closed(side: str, namespace: str) -> None:
    """Its pods must be restricted, and its default is that nothing comes in and nothing goes out."""
    found = permissions.by_kind_and_name(
        manifest
        for file in sorted((ROOT / "manifests" / side / "base").glob("*.yaml"))
        for manifest in objects(file)
    )
    labels = found["Namespace", namespace]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    deny = found["NetworkPolicy", "hanse-default-deny"]
    assert deny["metadata"]["namespace"] == namespace
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_object_has_a_home() -> None:
    """No namespaced object depends on the namespace of whoever applies it."""
    cluster_wide = {
        "Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip
    for file in FILES:
        for manifest in objects(file):
            assert ("namespace" in manifest["metadata"]) is (manifest["kind"] not in cluster_wide), file


def test_one_version() -> None:
    """The release names every image at the version of pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    release = yaml.safe_load((ROOT / "manifests/release/kustomization.yaml").read_text())
    assert {image["newTag"] for image in release["images"]} == {version}
    named = {image["name"] for image in release["images"]}
    for file in FILES:
        for manifest in objects(file):
            if manifest["kind"] == "Deployment":
                spec = manifest["spec"]["template"]["spec"]
                for container in [*spec.get("initContainers", []), *spec["containers"]]:
                    assert container["image"] in named
    assert (ROOT / "manifests/release/image-fields.yaml").read_text() == (
        ROOT / "manifests/release/local/image-fields.yaml"
    ).read_text()


@pytest.mark.parametrize(
    "file, kind, table",
    [
        ("edge/base/rbac.yaml", "Role", "edge agent in hanse"),
        ("hub/base/rbac.yaml", "ClusterRole", "coordinator"),
        ("hub/base/rbac.yaml", "Role", "coordinator in hanse-system"),
    ],
)
def test_permissions_are_documented(file: str, kind: str, table: str) -> None:
    """docs/permissions.md says what the manifests grant, no more and no less, and without wildcards."""
    (role,) = (m for m in objects(ROOT / "manifests" / file) if m["kind"] == kind)
    granted = permissions.granted(role)
    assert granted == permissions.documented(table)
    assert not any("*" in part for grant in granted for part in grant)


@pytest.mark.parametrize(
    "side, kinds",
    [("hub", {"federatedtrainings"}), ("edge", {"edgedatasets", "edgepolicies"})],
)
def test_people_may_what_their_role_in_a_namespace_says(side: str, kinds: set[str]) -> None:
    """Who may view sees, who may edit changes as well; status and members are nobody's by these roles."""
    view, edit = objects(ROOT / "manifests" / side / "base" / "people.yaml")
    read, written = permissions.granted(view), permissions.granted(edit)
    assert {resource for _, resource, _ in read} == {resource for _, resource, _ in written} == kinds
    assert {verb for *_, verb in read} == {"get", "list", "watch"}
    assert {verb for *_, verb in written} == {"create", "update", "patch", "delete", "deletecollection"}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    for role, want in ((view, {"view", "edit", "admin"}), (edit, {"edit", "admin"})):
        labels = role["metadata"]["labels"]
        assert {key.removeprefix(prefix) for key in labels if key.startswith(prefix)} == want


@pytest.mark.parametrize("part, makes_the_ca", [("base", True), ("cert-manager", False)])
def test_the_coordinator_reads_its_configuration(part: str, makes_the_ca: bool) -> None:
    """The JSON is a coordinator's, and its ports are those of the Deployment and the Services."""
    (found,) = objects(ROOT / "manifests/hub" / part / "configuration.yaml")
    read = config.CoordinatorConfig.model_validate_json(found["data"]["config.json"])
    assert read.kubernetes is not None
    assert read.kubernetes.create_ca is makes_the_ca
    (deployment, _) = objects(ROOT / "manifests/hub/base/deployment.yaml")
    ports = {
        port["name"]: port["containerPort"]
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    listens = {
        "control": read.control_listen,
        "door": read.kubernetes.door_listen,
        "health": read.kubernetes.health_listen,
    }
    assert ports == {name: int(listen.rpartition(":")[2]) for name, listen in listens.items()}
    assert read.enrollment_listen.startswith("127.0.0.1:")  # the door alone leads there


def test_who_is_bounded_is_the_coordinator() -> None:
    """The admission policies name the account and the namespace that the coordinator has and checks."""
    text = (ROOT / "manifests/hub/base/admission.yaml").read_text()
    (account,) = (m for m in objects(ROOT / "manifests/hub/base/rbac.yaml") if m["kind"] == "ServiceAccount")
    namespace, name = account["metadata"]["namespace"], account["metadata"]["name"]
    assert config.GUARDED_NAMESPACE == reach.HUB_NAMESPACE == namespace
    assert text.count(f'request.userInfo.username == "system:serviceaccount:{namespace}:{name}"') == 1
    assert text.count(f'request.userInfo.username != "system:serviceaccount:{namespace}:{name}"') == 1
    assert text.count(f'request.namespace != "{namespace}"') == 1
    (deployment, _) = objects(ROOT / "manifests/hub/base/deployment.yaml")
    spec = deployment["spec"]["template"]["spec"]
    assert (deployment["metadata"]["namespace"], spec["serviceAccountName"]) == (namespace, name)


def test_a_policy_holds_what_a_crd_cannot() -> None:
    """It has the very rules of the API's model, in an admission policy's words."""
    (policy,) = (
        manifest["spec"]
        for manifest in objects(ROOT / "manifests/hub/base/admission.yaml")
        if (manifest["kind"], manifest["metadata"]["name"])
        == ("ValidatingAdmissionPolicy", "hanse-trainings")
    )
    info = training.FederatedTraining.INFO
    assert policy["matchConstraints"]["resourceRules"][0]["resources"] == [info.plural]
    wanted = [
        (re.sub(r"\boldSelf\b", "oldObject", re.sub(r"\bself\b", "object", rule.rule)), rule.message)
        for rule in training.FederatedTraining.ADMISSION
    ]
    assert [(" ".join(one["expression"].split()), one["message"]) for one in policy["validations"]] == wanted
    others = [kind for kind in resources.KINDS.values() if kind is not training.FederatedTraining]
    assert not any(kind.ADMISSION for kind in others)


def test_the_ca_of_cert_manager_is_one_that_the_hub_takes() -> None:
    """A CA made as cert-manager/certificate.yaml asks is loaded for the trust domain of the configuration."""
    (wanted,) = (
        manifest["spec"]
        for manifest in objects(ROOT / "manifests/hub/cert-manager/certificate.yaml")
        if manifest["kind"] == "Certificate"
    )
    key = ec.generate_private_key(ec.SECP256R1())
    assert (wanted["privateKey"]["algorithm"], wanted["privateKey"]["size"]) == ("ECDSA", 256)
    assert wanted["secretName"] == "hanse-ca"
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, wanted["commonName"])])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=int(wanted["duration"].removesuffix("h"))))
        .add_extension(x509.BasicConstraints(ca=wanted["isCA"], path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in wanted["uris"]]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    configuration = (ROOT / "manifests/hub/base/configuration.yaml").read_text()
    trust_domain = yaml.safe_load(yaml.safe_load(configuration)["data"]["config.json"])["trust_domain"]
    assert certificate_authority.load(certificate, key, trust_domain).trust_domain == "hanse.local"
