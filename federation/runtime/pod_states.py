"""What a Job's and its pod's state means, in words that a data scientist understands, with the next step.

Kubernetes spreads the answer over a pod's conditions, its container's state, and Events; this module reads
them together. It is pure: it refuses to ask for anything, and to know the time.
"""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]

UNSCHEDULABLE = "Unschedulable"
IMAGE_NOT_PULLED = "ImageNotPulled"
VOLUME_NOT_MOUNTED = "VolumeNotMounted"
NOT_ADMITTED = "NotAdmitted"
CONTAINER_NOT_CREATED = "ContainerNotCreated"
NETWORK_NOT_READY = "NetworkNotReady"
OUT_OF_MEMORY = "OutOfMemory"
EVICTED = "Evicted"
PREEMPTED = "Preempted"
NODE_LOST = "NodeLost"
DEADLINE_EXCEEDED = "DeadlineExceeded"
REMOVED = "Removed"

KILLED_EXIT_CODE = 128 + signal.SIGKILL

RESTARTS_ANNOTATION = "hanse.dev/restarts-in-place"
"""On a pod: how often its container may start again after it was killed; 0 where it says nothing."""

_IMAGE_REASONS = {
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
    "ImageInspectError", "SignatureValidationFailed",
}  # fmt: skip
_CREATE_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_MOUNT_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
_ENDING_EVENTS = {"Evicted", "Preempting"}
"""What kubelet says just before it ends a pod."""
_PASSING = re.compile(r"no relationship found between node|failed to sync (secret|configmap) cache")
"""What kubelet says of a mount in a new pod's first moment, before the API server knows whose it is."""
_BACK_OFF = re.compile(r'Back-off pulling image "[^"]*": (\w+: )?')
"""What kubelet puts before the cause while it waits to try again."""
_SENT_FROM = re.compile(r"(\d+\.){3}\d+:\d+->|\[[\da-f:]+\]:\d+->")
"""The address that a failed request was sent from: another one each time, and of no use."""
_NOT_THE_PROGRAMS_WORDS = {"ContainerStatusUnknown", "StartError", "ContainerCannotRun"}
"""Ends of a container whose message is the node's own."""
_RESOURCES = {
    "cpu": "CPU",
    "memory": "memory",
    "ephemeral-storage": "disk space",
    "nvidia.com/gpu": "NVIDIA GPUs",
    "amd.com/gpu": "AMD GPUs",
}
_DISRUPTIONS = {
    "EvictionByEvictionAPI": (EVICTED, "its node is being drained; it can start again elsewhere"),
    "PreemptionByScheduler": (PREEMPTED, "a pod of higher priority needed its place"),
    "DeletionByTaintManager": (NODE_LOST, "its node does not answer; check the node"),
    "DeletionByPodGC": (NODE_LOST, "its node is gone"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """Nothing is known yet beyond that it was accepted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """It cannot run yet."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """Its container runs in this pod."""

    pod: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """It ended, or will never go on. `unreachable`: its node cannot be asked to clean up; `words`: what the
    program left in its termination log; `started_again`: its container runs once more, or did, which is not
    what ended; `disrupted`: somebody or something in its cluster ended it, and the program did no wrong.
    """

    exit_code: int | None
    signal: str | None
    reason: str = ""
    message: str = ""
    unreachable: bool = False
    words: str = ""
    started_again: bool = False
    disrupted: bool = False


State = Accepted | Held | Running | Ended


def read(job: Object, pod: Object | None, events: Sequence[Object] = ()) -> State:
    """Return what a Job, its pod if there is one, and the warnings about both mean together.

    events: Kubernetes Events about the Job and the pod, oldest first.
    """
    if pod is not None:
        return _read_pod(pod, events)
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Failed" and condition["status"] == "True":
            if condition.get("reason") == "DeadlineExceeded":
                return Ended(None, None, DEADLINE_EXCEEDED, "The Job ran longer than it may.")
            removed = f"Its pod was removed: {condition.get('message', '')}".strip()
            return Ended(None, None, REMOVED, removed, disrupted=True)
        if condition["type"] == "Complete" and condition["status"] == "True":
            return Ended(0, None)
    refused = _last(events, {"FailedCreate"})
    if refused is not None:
        return Held(NOT_ADMITTED, _admission(str(refused.get("message") or "")))
    return Accepted()


def is_to_end(pod: Object, events: Sequence[Object]) -> bool:
    """Whether it was announced that the pod will be ended: its node may remove its log together with it."""
    named = bool(_condition(pod.get("status") or {}, "DisruptionTarget"))
    return named or _deleted(pod) or _last(events, _ENDING_EVENTS) is not None


def _read_pod(pod: Object, events: Sequence[Object]) -> State:
    status: Object = pod.get("status") or {}
    phase = status.get("phase")
    container: Object = next(iter(status.get("containerStatuses") or ()), {})
    state: Object = container.get("state") or {}
    disruption = _condition(status, "DisruptionTarget")
    if (killed := _killed_for_good(pod, container)) is not None:
        # Kubelet may have been faster and started it once more; how that ends says nothing new.
        again = "waiting" not in state and killed is not state.get("terminated")
        return dataclasses.replace(_ended(pod, killed, disruption), words=_words(killed), started_again=again)
    if phase == "Running" and _starts_again(container) and not _deleted(pod):
        return Running(str(pod["metadata"]["name"]))
    if phase in ("Succeeded", "Failed") or "terminated" in state:
        ended = _ended(pod, state.get("terminated"), disruption)
        return dataclasses.replace(ended, words=_words(state.get("terminated") or {}))
    if disruption.get("reason") in ("DeletionByTaintManager", "DeletionByPodGC") and _deleted(pod):
        reason, why = _DISRUPTIONS[disruption["reason"]]
        return Ended(None, None, reason, f"The pod was lost: {why}.", unreachable=True, disrupted=True)
    if "running" in state:
        return Running(str(pod["metadata"]["name"]))
    return _held(status, state.get("waiting") or {}, events)


def _killed_for_good(pod: Object, container: Object) -> Object | None:
    """How a container that kubelet starts again was killed, where that start is not wanted any more.

    Kubelet itself would go on for ever; so the starts are counted here.
    """
    allowed = int((pod["metadata"].get("annotations") or {}).get(RESTARTS_ANNOTATION) or 0)
    begun = int(container.get("restartCount") or 0)
    before: Object = (container.get("lastState") or {}).get("terminated") or {}
    now: Object = (container.get("state") or {}).get("terminated") or {}
    due = begun + ("waiting" in (container.get("state") or {}))
    for killed, starts in ((before, due), (now, begun + 1)):
        over = starts > allowed or killed.get("reason") == "OOMKilled"
        if killed.get("exitCode") == KILLED_EXIT_CODE and over:
            return killed
    return None


def _starts_again(container: Object) -> bool:
    """Whether kubelet is about to start a killed container again."""
    state: Object = container.get("state") or {}
    before: Object = (container.get("lastState") or {}).get("terminated") or {}
    killed = before if "waiting" in state else state.get("terminated") or {}
    return bool(killed.get("exitCode") == KILLED_EXIT_CODE)


def _held(status: Object, waiting: Object, events: Sequence[Object]) -> State:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") in ("Unschedulable", "SchedulerError"):
        return _unschedulable(str(scheduled.get("message") or ""))
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _IMAGE_REASONS:
        # The same sentence in each try and between them: kubelet alternates for as long as it fails.
        cause = _SENT_FROM.sub("", _BACK_OFF.sub("", message, count=1))
        return Held(
            IMAGE_NOT_PULLED,
            f"The image cannot be pulled: {_cut(cause or reason)} Check its name, and whether the cluster "
            "reaches and may read its registry.",
        )
    if reason in _CREATE_REASONS:
        return Held(CONTAINER_NOT_CREATED, f"The container cannot be created: {_cut(message or reason)}")
    mount = _last([one for one in events if not _PASSING.search(str(one.get("message")))], _MOUNT_EVENTS)
    if mount is not None:
        missing = re.search(r'(secret|configmap) "([^"]+)" not found', str(mount.get("message") or ""))
        if missing:
            kind = {"secret": "Secret", "configmap": "ConfigMap"}[missing[1]]
            return Held(
                VOLUME_NOT_MOUNTED,
                f"The {kind} {missing[2]} does not exist in the pod's namespace. Create it, and the pod "
                "starts within two minutes; or correct the name.",
            )
        return Held(
            VOLUME_NOT_MOUNTED,
            f"A volume cannot be mounted: {_cut(str(mount.get('message') or ''))} Check that the claim or "
            "path of the data set exists on this cluster.",
        )
    sandbox = _last(events, {"FailedCreatePodSandBox"})
    if sandbox is not None:
        words = _cut(str(sandbox.get("message") or ""))
        return Held(NETWORK_NOT_READY, f"The node cannot set up the pod: {words} Check the node's network.")
    return Accepted()


def _ended(pod: Object, terminated: Object | None, disruption: Object) -> Ended:
    ended = _how_ended(pod, terminated, disruption)
    # A pod in which a program starts again is deleted with its Job after one end too many, which is its own.
    starts_again = RESTARTS_ANNOTATION in (pod["metadata"].get("annotations") or {})
    if not ended.reason and ended.signal in ("SIGTERM", "SIGKILL") and _deleted(pod) and not starts_again:
        return dataclasses.replace(ended, disrupted=True)
    return ended


def _how_ended(pod: Object, terminated: Object | None, disruption: Object) -> Ended:
    status: Object = pod.get("status") or {}
    exit_code, name = _exit(terminated)
    why = str(status.get("reason") or "")
    words = _cut(str(status.get("message") or ""))
    # Kubelet makes room for a pod of higher priority as the scheduler does, and has another word for it.
    disrupted = "PreemptionByScheduler" if why == "Preempting" else disruption.get("reason")
    if why == "Evicted" or disrupted == "TerminationByKubelet":
        return Ended(exit_code, name, EVICTED, _put_out(pod, words), disrupted=not _wrote_too_much(words))
    if why == "DeadlineExceeded":
        return Ended(exit_code, name, DEADLINE_EXCEEDED, "The pod ran longer than it may.")
    if why == "NodeLost":
        away = "The pod's node does not answer; check the node."
        return Ended(exit_code, name, NODE_LOST, away, disrupted=True)
    if terminated is not None and terminated.get("reason") == "OOMKilled":
        return Ended(exit_code, name, OUT_OF_MEMORY, _out_of_memory(pod))
    if disrupted in _DISRUPTIONS:
        reason, sentence = _DISRUPTIONS[disrupted]
        return Ended(exit_code, name, reason, f"The pod was ended: {sentence}.", disrupted=True)
    if terminated is None or terminated.get("reason") == "ContainerStatusUnknown":
        if status.get("phase") == "Succeeded":
            return Ended(0, None)
        if why:  # kubelet would not take it: OutOfcpu, NodeAffinity, UnexpectedAdmissionError
            not_taken = f"The node did not take the pod: {words or why}"
            return Ended(None, None, NOT_ADMITTED, not_taken, disrupted=True)
        removed = "The pod was ended before its program could say why."
        return Ended(None, None, REMOVED, removed, disrupted=True)
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        words = _cut(str(terminated.get("message") or ""))
        return Ended(exit_code, name, CONTAINER_NOT_CREATED, f"The program cannot be started: {words}")
    reason, message = last_words(str(terminated.get("message") or ""))
    return Ended(exit_code, name, reason, message)


_VOLUME_TOO_FULL = re.compile(r'EmptyDir volume "([^"]+)" exceeds the limit "([^"]+)"')
_DISK_TOO_FULL = re.compile(r'(?:limit of containers|ephemeral storage limit) "?([\w.]*\w)')


def _wrote_too_much(words: str) -> bool:
    return bool(_VOLUME_TOO_FULL.search(words) or _DISK_TOO_FULL.search(words))


def _put_out(pod: Object, words: str) -> str:
    """Read why kubelet put the pod out: its own limits, or what its node lacks."""
    if found := _VOLUME_TOO_FULL.search(words):
        return (
            f"The program wrote more than {found[2]} into {_path_of(pod, found[1])}, and its node ended it. "
            "Write less there, or have that limit raised."
        )
    if found := _DISK_TOO_FULL.search(words):
        return (
            f"The program wrote more than its limit of {found[1]} to its node's disk, and the node ended it. "
            "Write less, or raise the limit of ephemeral-storage."
        )
    if "low on resource" in words:
        return (
            f"The node put the pod out: {words} Ask for what it needs: the first to go are those that take "
            "more than they asked for."
        )
    return f"The node put the pod out: {words or 'it ran short.'}"


def _path_of(pod: Object, volume: str) -> str:
    mounts = pod["spec"]["containers"][0].get("volumeMounts") or ()
    found = [str(mount["mountPath"]) for mount in mounts if mount["name"] == volume]
    return found[0] if found else f"the volume {volume}"


def _words(terminated: Object) -> str:
    """What the program left; nothing where the node speaks in its place."""
    if terminated.get("reason") in _NOT_THE_PROGRAMS_WORDS:
        return ""
    return str(terminated.get("message") or "")


def last_words(text: str) -> tuple[str, str]:
    """Return the reason and message that a workload left in its termination log; empty if it left none.

    An app may write there too, and anything: also what nests too deeply, and what a terminal would obey.
    """
    try:
        left = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(left, dict):
        return "", ""
    reason, message = left.get("reason"), left.get("message")
    if not isinstance(reason, str) or not re.fullmatch(r"[A-Z][A-Za-z0-9]{0,62}", reason):
        return "", ""
    return reason, _printable(message[:2000]) if isinstance(message, str) else ""


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else " " for one in text)


def _exit(terminated: Object | None) -> tuple[int | None, str | None]:
    """Container runtimes tell a signal as 128 and its number."""
    if terminated is None:
        return None, None
    number = int(terminated.get("signal") or 0)
    code = int(terminated.get("exitCode") or 0)
    if not number and 128 < code < 128 + signal.NSIG:
        number = code - 128
    if number:
        try:
            return None, signal.Signals(number).name
        except ValueError:
            return code, None
    return code, None


def _out_of_memory(pod: Object) -> str:
    container = pod["spec"]["containers"][0]
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    used = f"more than its limit of {limit} of memory" if limit else "more memory than its node has"
    return f"The program used {used}. Raise the limit, or use smaller batches or a smaller model."


def _unschedulable(message: str) -> Held:
    """Read the scheduler's message: `0/3 nodes are available: 2 Insufficient memory, 1 node(s) had ...`."""
    found = re.search(r'persistentvolumeclaim "([^"]+)" (not found|is being deleted)', message)
    if found:
        return Held(
            VOLUME_NOT_MOUNTED,
            f"The claim {found[1]} does not exist on this cluster. Create it, or correct the data set that "
            "names it.",
        )
    if "unbound immediate PersistentVolumeClaims" in message:
        return Held(
            VOLUME_NOT_MOUNTED, "A claim of the pod is not bound to a volume. Check the claim's Events."
        )
    short = sorted(set(re.findall(r"Insufficient ([^\s,]+?)[.,]?(?:\s|$)", message)))
    if short:
        lacking = _join([_RESOURCES.get(name, name) for name in short])
        return Held(
            UNSCHEDULABLE,
            f"No node has enough {lacking} free. Ask for less in the training's resources, or wait until "
            f"others have ended. The scheduler says: {_cut(message)}",
        )
    if "node selector" in message or "node affinity" in message:
        step = "No node has the labels that the pod asks for. Correct the node selector, or label a node."
    elif "taint" in message:
        step = "Every node that would do is closed to the pod by a taint."
    elif "no nodes available" in message or message.startswith("0/0"):
        step = "The cluster has no node. Add one."
    else:
        step = "No node can take the pod."
    return Held(UNSCHEDULABLE, f"{step} The scheduler says: {_cut(message)}")


def _admission(message: str) -> str:
    if "exceeded quota" in message:
        step = "Ask for less, or have the namespace's quota raised."
    elif "PodSecurity" in message:
        step = "A volume or setting breaks the namespace's Pod Security level; a claim is always allowed."
    elif "serviceaccount" in message:
        step = "Create the service account, or name another."
    else:
        step = "Ask the cluster's operator."
    return f"The cluster does not admit the pod: {_cut(message)} {step}"


def _condition(status: Object, name: str) -> Object:
    for condition in status.get("conditions") or ():
        if condition["type"] == name and (name != "DisruptionTarget" or condition["status"] == "True"):
            found: Object = condition
            return found
    return {}


def _deleted(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _last(events: Sequence[Object], names: set[str]) -> Object | None:
    return next((event for event in reversed(events) if event.get("reason") in names), None)


def _join(words: list[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def _cut(text: str) -> str:
    """One line of bounded length that ends like a sentence."""
    line = " ".join(text.split())
    line = line if len(line) <= 600 else line[:600] + " …"
    return line if not line or line[-1] in ".!?…" else line + "."
