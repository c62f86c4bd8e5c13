"""What a workload becomes in a cluster."""

from __future__ import annotations

import base64
import pathlib

import pytest

from federation.runtime import pods, port

PATH = pathlib.PurePosixPath


def workload(**fields: object) -> port.Workload:
    pod = fields.pop("pod", {})
    assert isinstance(pod, dict)
    fields = {"name": "client", "argv": ("python", "-m", "x"), "directory": PATH("/hanse"), **fields}
    return port.Workload(image="example.org/client:1", pod=port.Pod(namespace="hanse", **pod), **fields)


def container(made: port.Workload) -> pods.Object:
    found: pods.Object = pods.job(made)["spec"]["template"]["spec"]["containers"][0]
    return found


def by_kind(made: port.Workload) -> dict[str, list[pods.Object]]:
    found: dict[str, list[pods.Object]] = {}
    for one in pods.belongings(made, "uid-1"):
        found.setdefault(one["kind"], []).append(one)
    return found


def test_the_pod_meets_pod_security_restricted() -> None:
    """No root, no privileges, no writable root file system, no token, no environment of Services."""
    spec = pods.job(workload())["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert "serviceAccountName" not in spec


def test_the_job_runs_once_and_begins_suspended() -> None:
    """It may make its pod only when everything else is there; a failed pod is not replaced."""
    spec = pods.job(workload())["spec"]
    assert (spec["suspend"], spec["backoffLimit"], spec["podReplacementPolicy"]) == (True, 0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert pods.never_began(pods.job(workload()))


def test_a_killed_program_starts_again_in_its_pod_where_that_is_asked() -> None:
    """Only one that was killed: the pod's own policy stays Never, and the number stands beside it."""
    made = workload(pod={"restarts_in_place": 2, "annotations": {"a": "b"}})
    template = pods.job(made)["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "b", "hanse.dev/restarts-in-place": "2"}
    assert template["spec"]["restartPolicy"] == container(made)["restartPolicy"] == "Never"
    assert container(made)["restartPolicyRules"] == [
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [137]}}
    ]
    assert "restartPolicyRules" not in container(workload())
    assert pods.job(workload())["spec"]["template"]["metadata"]["annotations"] == {}


def test_the_policy_closes_everything_that_is_not_named() -> None:
    """Nothing in, and out to one address and to labelled pods alone."""
    out = (port.Destination("192.0.2.1", 443), port.PodDestination("hub", {"app": "door"}, 8443))
    (policy,) = by_kind(workload(pod={"egress": out}))["NetworkPolicy"]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"hanse.dev/workload": "client"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"protocol": "TCP", "port": 443}]},
            {
                "to": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hub"}},
                        "podSelector": {"matchLabels": {"app": "door"}},
                    }
                ],
                "ports": [{"protocol": "TCP", "port": 8443}],
            },
        ],
    }


@pytest.mark.parametrize(
    ("pod", "want_ingress", "want_egress"),
    [
        ({"egress": ()}, [], []),
        (
            {"egress": None},
            [],
            [
                {
                    "to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
                        {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"]}},
                        {"namespaceSelector": {}},
                    ]
                }
            ],
        ),
        ({"egress": (), "ingress_port": 9}, [{"ports": [{"protocol": "TCP", "port": 9}]}], []),
        (
            {"egress": (port.Destination("2001:db8::1", 1),)},
            [],
            [{"to": [{"ipBlock": {"cidr": "2001:db8::1/128"}}], "ports": [{"protocol": "TCP", "port": 1}]}],
        ),
    ],
    ids=["closed", "open outwards", "one port in", "IPv6"],
)
def test_ways_in_and_out(pod: dict[str, object], want_ingress: object, want_egress: object) -> None:
    """None leaves the way out open but for a cloud's metadata, an empty tuple closes it."""
    (policy,) = by_kind(workload(pod=pod))["NetworkPolicy"]
    assert (policy["spec"]["ingress"], policy["spec"]["egress"]) == (want_ingress, want_egress)


def test_everything_is_labelled_and_belongs_to_the_job() -> None:
    """So that it is found, and goes with the Job."""
    made = pods.owned(workload(files={"a": b""}, pod={"labels": {"x": "y"}}), "agent")
    want = {
        "x": "y",
        "hanse.dev/runtime": "agent",
        "app.kubernetes.io/managed-by": "hanse",
        "hanse.dev/workload": "client",
    }
    assert pods.job(made)["spec"]["template"]["metadata"]["labels"] == want
    for one in (pods.job(made), *pods.belongings(made, "uid-1")):
        assert one["metadata"]["labels"] == want
    for one in pods.belongings(made, "uid-1"):
        assert one["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_the_policy_is_created_first() -> None:
    """If the maker dies in between, what exists is closed."""
    assert pods.belongings(workload(files={"a": b""}), "uid")[0]["kind"] == "NetworkPolicy"


def test_files_and_secret_directories_are_read_only_secrets() -> None:
    """Each directory is one Secret, whose name follows from the directory."""
    made = workload(files={"config.json": b"{}"}, pod={"secret_directories": {PATH("/id"): {"key": b"k"}}})
    secrets = {one["metadata"]["name"]: one["data"] for one in by_kind(made)["Secret"]}
    assert secrets == {
        "client-files": {"config.json": base64.b64encode(b"{}").decode()},
        pods.secret_name("client", PATH("/id")): {"key": base64.b64encode(b"k").decode()},
    }
    mounts = {mount["mountPath"]: mount["readOnly"] for mount in container(made)["volumeMounts"]}
    assert mounts == {"/tmp": False, "/hanse": True, "/id": True}


def test_a_blob_in_parts_is_the_bytes_again() -> None:
    """Joined in the order of their names the parts are the blob; each is immutable and small enough."""
    content = bytes(range(256)) * 8192  # 2 MiB
    made = workload(pod={"blobs": {PATH("/app"): content}})
    maps = by_kind(made)["ConfigMap"]
    parts = {name: base64.b64decode(data) for one in maps for name, data in one["binaryData"].items()}
    assert b"".join(parts[name] for name in sorted(parts)) == content
    assert all(one["immutable"] and len(part) < 900 * 1024 for one in maps for part in parts.values())
    volumes = pods.job(made)["spec"]["template"]["spec"]["volumes"]
    sources = next(v["projected"]["sources"] for v in volumes if "projected" in v)
    assert [source["configMap"]["name"] for source in sources] == [one["metadata"]["name"] for one in maps]


def test_a_blob_that_is_too_large_says_what_to_do() -> None:
    """The message has both sizes and the next step."""
    made = workload(pod={"blobs": {PATH("/app"): bytes(25 * 2**20)}})
    with pytest.raises(port.WorkloadNotStarted, match=r"25\.0 MiB, and at most 24 MiB .* into the image"):
        pods.belongings(made, "uid")


def test_a_read_only_claim_is_read_only_as_a_volume() -> None:
    """Else kubelet would change the group of the owner's files to the pod's."""
    mounts = (
        port.Mount(PATH("/data"), {"persistentVolumeClaim": {"claimName": "data"}}),
        port.Mount(PATH("/journal"), {"persistentVolumeClaim": {"claimName": "journal"}}, read_only=False),
        port.Mount(PATH("/sample"), {"configMap": {"name": "sample"}}),
    )
    volumes = pods.job(workload(pod={"mounts": mounts}))["spec"]["template"]["spec"]["volumes"]
    assert [{k: v for k, v in one.items() if k != "name"} for one in volumes[-3:]] == [
        {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        {"persistentVolumeClaim": {"claimName": "journal"}},
        {"configMap": {"name": "sample"}},
    ]


def test_the_working_directory_exists_without_files() -> None:
    """It is a volume of its own, or a mount that is there anyway."""
    assert "/hanse" in [m["mountPath"] for m in container(workload())["volumeMounts"]]
    mount = port.Mount(PATH("/hanse"), {"emptyDir": {}}, read_only=False)
    paths = [m["mountPath"] for m in container(workload(pod={"mounts": (mount,)}))["volumeMounts"]]
    assert sorted(paths) == ["/hanse", "/tmp"]


def test_the_environment_knows_the_pod_and_takes_values_literally() -> None:
    """Values with $(NAME) in them are not expanded by Kubernetes."""
    found = {one["name"]: one for one in container(workload(environment={"A": "$(HOME)"}))["env"]}
    assert found["A"]["value"] == "$$(HOME)"
    assert found["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert found["POD_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert found["HOME"]["value"] == "/tmp"


@pytest.mark.parametrize(
    ("limits", "environment", "want"),
    [
        (
            {"cpu": "1500m"},
            {},
            {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
        ),
        ({"cpu": "4"}, {"OMP_NUM_THREADS": "2"}, {"value": "2"}),
        ({"memory": "1Gi"}, {}, None),
    ],
    ids=["a limit", "said otherwise", "no limit"],
)
def test_threads_follow_the_limit_of_processors(
    limits: dict[str, str], environment: dict[str, str], want: pods.Object | None
) -> None:
    """Without one, a math library's own choice stands."""
    made = workload(resources=port.Resources({}, limits), environment=environment)
    found = [one for one in container(made)["env"] if one["name"] == "OMP_NUM_THREADS"]
    assert found == ([] if want is None else [{"name": "OMP_NUM_THREADS", **want}])


def test_names_are_resolved_without_dns() -> None:
    """Names of one address stand together."""
    made = workload(pod={"host_names": {"b.hub": "192.0.2.1", "a.hub": "192.0.2.1", "c": "192.0.2.2"}})
    assert pods.job(made)["spec"]["template"]["spec"]["hostAliases"] == [
        {"ip": "192.0.2.1", "hostnames": ["a.hub", "b.hub"]},
        {"ip": "192.0.2.2", "hostnames": ["c"]},
    ]


def test_resources_nodes_and_account_are_as_asked() -> None:
    """They reach the pod unchanged."""
    resources = port.Resources({"cpu": "1"}, {"memory": "1Gi", "nvidia.com/gpu": "1"})
    made = workload(resources=resources, pod={"node_selector": {"gpu": "yes"}, "service_account": "none"})
    spec = pods.job(made)["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "1"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"},
    }
    assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"gpu": "yes"}, "none")
