"""What the state of a Job and its pod means, over states as real clusters show them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from federation.runtime import pod_states
from federation.runtime.pod_states import Accepted, Ended, Held, Running

JOB: dict[str, Any] = {"metadata": {"name": "client", "uid": "j"}, "spec": {}, "status": {}}


def pod(**status: Any) -> dict[str, Any]:
    resources = {"limits": {"memory": "512Mi"}}
    mounts = [{"name": "mount-1", "mountPath": "/tmp"}]
    return {
        "metadata": {"name": "client-x7k2p", "uid": "p"},
        "spec": {"containers": [{"name": "main", "resources": resources, "volumeMounts": mounts}]},
        "status": status,
    }


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "main", "state": state}]}


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(phase="Pending", conditions=[condition])


def ended(exit_code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": exit_code, "reason": reason, **more}}
    return pod(phase="Succeeded" if exit_code == 0 else "Failed", **container(**state))


def event(reason: str, message: str) -> dict[str, Any]:
    return {"reason": reason, "message": message, "lastTimestamp": "2026-03-01T12:00:00Z"}


HELD = {
    "too little memory": (
        unscheduled("0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 "
                    "No preemption victims found for incoming pod."),
        [], "Unschedulable", "No node has enough memory free.",
    ),
    "too little of two": (
        unscheduled("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu. preemption: "
                    "0/3 nodes are available: 3 No preemption victims found for incoming pod."),
        [], "Unschedulable", "No node has enough CPU and NVIDIA GPUs free.",
    ),
    "no such label": (
        unscheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        [], "Unschedulable", "Correct the node selector, or label a node.",
    ),
    "tainted": (
        unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}."),
        [], "Unschedulable", "closed to the pod by a taint",
    ),
    "no node at all": (
        unscheduled("no nodes available to schedule pods"), [], "Unschedulable", "The cluster has no node.",
    ),
    "no such claim": (
        unscheduled('0/1 nodes are available: persistentvolumeclaim "mri" not found. preemption: 0/1 nodes'),
        [], "VolumeNotMounted", "The claim mri does not exist on this cluster.",
    ),
    "unbound claim": (
        unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        [], "VolumeNotMounted", "is not bound to a volume",
    ),
    "image that does not exist": (
        pod(phase="Pending", **container(waiting={"reason": "ErrImagePull", "message": "not found"})),
        [], "ImageNotPulled", "The image cannot be pulled: not found. Check its name",
    ),
    "image, later": (
        pod(phase="Pending", **container(waiting={
            "reason": "ImagePullBackOff",
            "message": 'Back-off pulling image "r.org/a": ErrImagePull: failed to resolve: unauthorized'})),
        [event("Failed", "Error: ImagePullBackOff")],
        "ImageNotPulled", "The image cannot be pulled: failed to resolve: unauthorized. Check its name",
    ),
    "image whose registry has no address": (
        pod(phase="Pending", **container(waiting={
            "reason": "ErrImagePull",
            "message": "lookup r.org on 10.0.0.2:53: read udp 172.30.0.10:56747->10.0.0.2:53: i/o timeout"})),
        [], "ImageNotPulled", "lookup r.org on 10.0.0.2:53: read udp 10.0.0.2:53: i/o timeout.",
    ),
    "image that must be there already": (
        pod(phase="Pending", **container(waiting={"reason": "ErrImageNeverPull"})),
        [], "ImageNotPulled", "ErrImageNeverPull.",
    ),
    "path that does not exist": (
        pod(phase="Pending", **container(waiting={"reason": "ContainerCreating"})),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "mount-0" : hostPath type check failed')],
        "VolumeNotMounted", "hostPath type check failed.",
    ),
    "secret that does not exist": (
        pod(phase="Pending", **container(waiting={"reason": "ContainerCreating"})),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "m" : secret "bucket-key" not found')],
        "VolumeNotMounted", "The Secret bucket-key does not exist in the pod's namespace. Create it",
    ),
    "no network plugin": (
        pod(phase="Pending", **container(waiting={"reason": "ContainerCreating"})),
        [event("FailedCreatePodSandBox", "Failed to create pod sandbox: cni plugin not initialized")],
        "NetworkNotReady", "cni plugin not initialized.",
    ),
    "config error": (
        pod(phase="Pending", **container(waiting={
            "reason": "CreateContainerConfigError", "message": "runAsNonRoot, and image will run as root"})),
        [], "ContainerNotCreated", "image will run as root.",
    ),
    "refused by Pod Security": (
        None,
        [event("FailedCreate", 'Error creating: pods "client-abc" is forbidden: violates PodSecurity '
               '"restricted:latest": restricted volume types (volume "mount-0" uses hostPath)')],
        "NotAdmitted", "breaks the namespace's Pod Security level",
    ),
    "refused by a quota": (
        None,
        [event("FailedCreate", 'Error creating: pods "c" is forbidden: exceeded quota: q, requested: cpu=4')],
        "NotAdmitted", "Ask for less, or have the namespace's quota raised.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "events", "reason", "words"), HELD.values(), ids=HELD.keys())
def test_why_it_cannot_run_yet(
    found: dict[str, Any] | None, events: list[dict[str, Any]], reason: str, words: str
) -> None:
    """The reason is one of ours, the message says what lacks and what to do."""
    state = pod_states.read(JOB, found, events)
    assert isinstance(state, Held)
    assert state.reason == reason
    assert words in state.message
    assert state.message.endswith((".", "…"))


def disrupted(by: str, /, **status: Any) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": by}
    return pod(conditions=[condition], **status)


ENDED = {
    "well": (ended(0, "Completed"), 0, None, "", ""),
    "with a status": (ended(3), 3, None, "", ""),
    "by a signal": (ended(139), None, "SIGSEGV", "", ""),
    "out of memory": (
        ended(137, "OOMKilled"), None, "SIGKILL", "OutOfMemory", "more than its limit of 512Mi of memory",
    ),
    "with last words": (
        ended(7, message='{"reason": "NetworkOpen", "message": "An address is open."}'),
        7, None, "NetworkOpen", "An address is open.",
    ),
    "with words that are not ours": (ended(1, message="Traceback: boom"), 1, None, "", ""),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory. "),
        None, None, "Evicted", "The node was low on resource: memory. Ask for what it needs",
    ),
    "a directory too full": (
        pod(phase="Failed", reason="Evicted",
            message='Usage of EmptyDir volume "mount-1" exceeds the limit "16Mi". ',
            **container(terminated={"exitCode": 137, "reason": "Error"})),
        None, "SIGKILL", "Evicted", "The program wrote more than 16Mi into /tmp, and its node ended it.",
    ),
    "too much on the disk": (
        pod(phase="Failed", reason="Evicted",
            message="Pod ephemeral local storage usage exceeds the total limit of containers 1.5Gi. ",
            **container(terminated={"exitCode": 137, "reason": "Error"})),
        None, "SIGKILL", "Evicted", "more than its limit of 1.5Gi to its node's disk, and",
    ),
    "too much in its log": (
        pod(phase="Failed", reason="Evicted",
            message='Container main exceeded its local ephemeral storage limit "16Mi". ',
            **container(terminated={"exitCode": 137, "reason": "Error"})),
        None, "SIGKILL", "Evicted", "more than its limit of 16Mi to its node's disk, and",
    ),
    "its node shuts down": (
        disrupted("TerminationByKubelet", phase="Failed", reason="Terminated",
                  message="Pod was terminated in response to imminent node shutdown."),
        None, None, "Evicted", "The node put the pod out: Pod was terminated in response to imminent node",
    ),
    "preempted by its node": (
        disrupted("TerminationByKubelet", phase="Failed", reason="Preempting",
                  message="Preempted in order to admit critical pod",
                  **container(terminated={"exitCode": 137, "reason": "Error"})),
        None, "SIGKILL", "Preempted", "higher priority",
    ),
    "drained": (
        disrupted("EvictionByEvictionAPI", phase="Failed",
                  **container(terminated={"exitCode": 143, "reason": "Error"})),
        None, "SIGTERM", "Evicted", "is being drained",
    ),
    "preempted": (
        disrupted("PreemptionByScheduler", phase="Failed",
                  **container(terminated={"exitCode": 143, "reason": "Error"})),
        None, "SIGTERM", "Preempted", "higher priority",
    ),
    "node gone": (pod(phase="Failed", reason="NodeLost"), None, None, "NodeLost", "check the node"),
    "too long": (pod(phase="Failed", reason="DeadlineExceeded"), None, None, "DeadlineExceeded", "longer"),
    "not taken by the node": (
        pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
        None, None, "NotAdmitted", "enough resource: cpu.",
    ),
    "program that is not in the image": (
        ended(128, "StartError", message='exec: "python": executable file not found in $PATH'),
        128, None, "ContainerNotCreated", "executable file not found",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "code", "name", "reason", "words"), ENDED.values(), ids=ENDED.keys())
def test_how_it_ended(
    found: dict[str, Any], code: int | None, name: str | None, reason: str, words: str
) -> None:
    """Exit status or signal, and what more there is to say."""
    state = pod_states.read(JOB, found)
    assert isinstance(state, Ended)
    assert (state.exit_code, state.signal, state.reason) == (code, name, reason)
    assert words in state.message


NOT_ITS_OWN_DOING = {
    "evicted", "its node shuts down", "preempted by its node", "drained", "preempted", "removed",
    "node gone", "not taken by the node",
}  # fmt: skip
"""Of these nobody can blame the program; one that wrote too much was put out by rights."""


@pytest.mark.parametrize("case", ENDED)
def test_whose_doing_the_end_was(case: str) -> None:
    """What a node or the cluster did does not count against the program, whatever words it leaves."""
    found, *_ = ENDED[case]
    state = pod_states.read(JOB, found)
    assert isinstance(state, Ended)
    assert state.disrupted == (case in NOT_ITS_OWN_DOING)


def test_somebody_who_deletes_its_pod_is_not_its_own_doing() -> None:
    """But for one that used too much memory meanwhile, or ended by itself."""
    wants = {(143, "Error"): True, (137, "Error"): True, (137, "OOMKilled"): False, (1, "Error"): False}
    for (code, reason), want in wants.items():
        found = ended(code, reason, message='{"reason": "Evicted", "message": "no"}' if code == 1 else "")
        found["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        state = pod_states.read(JOB, found)
        assert isinstance(state, Ended)
        assert state.disrupted == want
    assert not pod_states.read(JOB, ended(143)).disrupted  # type: ignore[union-attr]


def test_a_pod_that_went_with_its_job_after_one_end_too_many_was_not_disrupted() -> None:
    """Its program starts again in it, so the Job's controller deletes it when that has been often enough."""
    found = ended(137)
    found["metadata"] |= {
        "deletionTimestamp": "2026-03-01T12:00:00Z",
        "annotations": {pod_states.RESTARTS_ANNOTATION: "2"},
    }
    assert not pod_states.read(JOB, found).disrupted  # type: ignore[union-attr]


@pytest.mark.parametrize("reason", ["ContainerStatusUnknown", "StartError"])
def test_a_nodes_words_are_not_the_programs(reason: str) -> None:
    """A program that never began has left none."""
    found = pod_states.read(JOB, ended(137, reason, message="The container could not be located"))
    assert isinstance(found, Ended)
    assert found.words == ""


def test_a_pod_on_a_lost_node_is_ended_though_it_says_that_it_runs() -> None:
    """Nobody can ask the node, so it is marked as unreachable."""
    lost = disrupted("DeletionByTaintManager", phase="Running", **container(running={}))
    lost["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    state = pod_states.read(JOB, lost)
    assert isinstance(state, Ended)
    assert (state.reason, state.unreachable) == ("NodeLost", True)


RUNS = container(running={"startedAt": "2026-03-01T12:00:00Z"})
DELETED = pod(phase="Running", **RUNS)
DELETED["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("found", "events", "want"),
    [
        (pod(phase="Running", **RUNS), [], False),
        (pod(phase="Running", **RUNS), [event("FailedMount", "timed out")], False),
        (
            pod(phase="Running", **RUNS),
            [event("Evicted", 'Usage of EmptyDir volume "mount-1" exceeds')],
            True,
        ),
        (pod(phase="Running", **RUNS), [event("Preempting", "Preempted in order to admit")], True),
        (disrupted("EvictionByEvictionAPI", phase="Running", **RUNS), [], True),
        (DELETED, [], True),
    ],
    ids=["runs", "had trouble", "put out", "gives way", "drained", "deleted"],
)
def test_an_end_that_is_announced(found: dict[str, Any], events: list[dict[str, Any]], want: bool) -> None:
    """It is known while the log can still be read: of a pod that it puts out kubelet removes that, too."""
    assert pod_states.is_to_end(found, events) == want


def test_a_pod_that_is_being_made_says_nothing_yet() -> None:
    """Pulling an image or mounting a volume is no news before it fails."""
    creating = pod(phase="Pending", **container(waiting={"reason": "ContainerCreating"}))
    assert pod_states.read(JOB, creating) == Accepted()
    assert pod_states.read(JOB, None) == Accepted()


PASSING = (
    'failed to fetch PVC from API server: persistentvolumeclaims "rows" is forbidden: User "system:node:a" '
    'cannot get resource "persistentvolumeclaims" in API group "" in the namespace "hanse": no relationship '
    "found between node 'a' and this object",
    'MountVolume.SetUp failed for volume "files" : failed to sync secret cache: timed out',
)


@pytest.mark.parametrize("message", PASSING)
def test_what_passes_by_itself_is_no_reason_to_wait(message: str) -> None:
    """Kubelet asks a moment too early, and again a moment later; a quorum must not fail by it."""
    creating = pod(phase="Pending", **container(waiting={"reason": "ContainerCreating"}))
    assert pod_states.read(JOB, creating, [event("FailedMount", message)]) == Accepted()
    lasting = event("FailedMount", 'MountVolume.SetUp failed for volume "m" : secret "key" not found')
    assert isinstance(pod_states.read(JOB, creating, [lasting, event("FailedMount", message)]), Held)


def test_a_running_container_is_running_whatever_failed_before() -> None:
    """An earlier failed mount is of no interest any more."""
    running = pod(phase="Running", **container(running={"startedAt": "x"}))
    assert pod_states.read(JOB, running, [event("FailedMount", "timed out")]) == Running("client-x7k2p")


def test_a_job_whose_pod_is_gone_has_ended() -> None:
    """Its condition says so; the exit status went with the pod."""
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has"}
    state = pod_states.read(JOB | {"status": {"conditions": [condition]}}, None)
    assert isinstance(state, Ended)
    assert (state.exit_code, state.reason) == (None, "Removed")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"reason": 3}', '{"reason": "not camel"}', '{"message": "x"}', "{", "\x00"]
)
def test_what_are_no_last_words(text: str) -> None:
    """Whatever a program leaves there, reading it does not fail."""
    assert pod_states.last_words(text) == ("", "")


LAST_WORDS = {
    "nested too deeply": ("[" * 4096, ("", "")),
    "half a character": ('{"reason": "Ended", "message": "\\ud800"}', ("Ended", " ")),
    "clears the screen": (
        '{"reason": "Ended", "message": "\\u001b[2Jdone\\nor not"}',
        ("Ended", " [2Jdone\nor not"),
    ),
    "no reason": ('{"reason": "\\u001b[2J", "message": "done"}', ("", "")),
    "no text": ('{"reason": "Ended", "message": {"a": 1}}', ("Ended", "")),
    "too long": ('{"reason": "Ended", "message": "' + "x" * 3000 + '"}', ("Ended", "x" * 2000)),
}


@pytest.mark.parametrize("case", LAST_WORDS)
def test_last_words_of_an_app_that_lies(case: str) -> None:
    """An app may write anything into its termination log: it harms neither reader nor terminal."""
    text, want = LAST_WORDS[case]
    assert pod_states.last_words(text) == want


KILLED = {"exitCode": 137, "reason": "Error"}
TOO_MUCH = {"exitCode": 137, "reason": "OOMKilled"}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}
LOST = Ended(None, "SIGKILL")


@pytest.mark.parametrize(
    ("state", "last", "count", "allowed", "want"),
    [
        ({"terminated": KILLED}, {}, 0, 1, Running("client-x7k2p")),
        (BACK_OFF, {"terminated": KILLED}, 0, 1, Running("client-x7k2p")),
        (RUNNING, {"terminated": KILLED}, 1, 1, Running("client-x7k2p")),
        ({"terminated": KILLED}, {"terminated": KILLED}, 1, 1, LOST),
        (BACK_OFF, {"terminated": KILLED}, 1, 1, LOST),
        (RUNNING, {"terminated": KILLED}, 2, 1, dataclasses.replace(LOST, started_again=True)),
        ({"terminated": KILLED}, {}, 0, 0, LOST),
        ({"terminated": {"exitCode": 1, "reason": "Error"}}, {"terminated": KILLED}, 1, 1, Ended(1, None)),
    ],
    ids=[
        "killed", "waits for its start", "runs again", "once too often", "would wait again",
        "runs once too often", "none is allowed", "ended by itself after it was killed",
    ],
)  # fmt: skip
def test_a_killed_container_starts_again_so_often(
    state: dict[str, Any], last: dict[str, Any], count: int, allowed: int, want: pod_states.State
) -> None:
    """Within its number it counts as running, beyond it as ended, whatever kubelet does next."""
    seen = pod(
        phase="Running", containerStatuses=[{"state": state, "lastState": last, "restartCount": count}]
    )
    seen["metadata"]["annotations"] = {pod_states.RESTARTS_ANNOTATION: str(allowed)}
    if state.get("terminated", {}).get("exitCode") == 1:
        seen["status"]["phase"] = "Failed"
    assert pod_states.read(JOB, seen) == want


@pytest.mark.parametrize(
    ("state", "last", "started_again"),
    [
        ({"terminated": TOO_MUCH}, {}, False),
        (RUNNING, {"terminated": TOO_MUCH}, True),
        (BACK_OFF, {"terminated": TOO_MUCH}, False),
        ({"terminated": {"exitCode": 143, "reason": "Error"}}, {"terminated": TOO_MUCH}, True),
    ],
    ids=["now", "before this start", "before the next start", "and what was started was ended"],
)  # fmt: skip
def test_a_container_that_took_too_much_memory_has_ended(
    state: dict[str, Any], last: dict[str, Any], started_again: bool
) -> None:
    """Also where kubelet was faster and started it again: it would take as much once more."""
    seen = pod(phase="Running", containerStatuses=[{"state": state, "lastState": last, "restartCount": 1}])
    seen["metadata"]["annotations"] = {pod_states.RESTARTS_ANNOTATION: "3"}
    found = pod_states.read(JOB, seen)
    assert isinstance(found, Ended)
    assert found.reason == "OutOfMemory"
    assert found.started_again == started_again, "whose log is to be read"
