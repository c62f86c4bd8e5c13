"""Pods that real nodes cannot start, or end: what the runtime over Jobs says of it, with their last lines.

The state tables of tests/unit/federation/runtime/test_pod_states.py are what is seen here, written down.
"""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from federation.kube import client
from federation.runtime import jobs, port
from tests.cluster import labs, places
from tests.cluster.places import Place

PATH = pathlib.PurePosixPath
NOWHERE = "127.0.0.1:1/apps/none:1"
"""An image that no node has, of a registry that answers at once: nobody listens there."""

HOLDS = "trap 'exit 143' TERM; echo begins; sleep 1000 & wait"
HOLDS_ON = "trap '' TERM; echo begins; sleep 1000 & wait"
TOO_SMALL = port.Mount(PATH("/tmp"), {"emptyDir": {"sizeLimit": "16Mi"}}, read_only=False)
FILLS = "echo begins; echo writes rows; head -c 40000000 /dev/zero > /tmp/rows; sleep 1000"
"""What it says comes before what it is put out for."""


def waits(reason: str, container: client.Object) -> bool:
    return bool((container["state"].get("waiting") or {}).get("reason") == reason)


def runs_again(container: client.Object) -> bool:
    return container["restartCount"] > 0 and "running" in container["state"]


def last_lines(exited: port.Exited, *lines: str) -> bool:
    """Whether it has these last lines, or none: a node that removes a log with its pod may be faster than who
    reads it when the end is announced. What the node says in a log's place is none.
    """
    return exited.log_tail in (lines, ())


async def test_an_image_that_is_nowhere_is_said_once(place: Place) -> None:
    """In one sentence with the cause, also while the node pauses between two tries; it can be stopped."""
    await place.start("no-image", "true", image=NOWHERE)
    (waiting,) = await place.next(1)
    assert isinstance(waiting, port.Waiting)
    assert waiting.reason == "ImageNotPulled"
    assert waiting.message.startswith("The image cannot be pulled: ")
    assert NOWHERE in waiting.message
    assert "connection refused. Check its name" in waiting.message
    await place.until("no-image", lambda container: waits("ImagePullBackOff", container))
    await place.until("no-image", lambda container: waits("ErrImagePull", container))
    await place.runtime.stop("no-image", 1)
    assert await place.next(1) == [port.Exited("no-image", None, None)], "and no other Waiting"
    assert await place.left() == []


async def test_a_program_that_fails_ends_there_and_then(place: Place) -> None:
    """Nothing crashes in a loop unseen: who wants it again starts it, and has each time its last lines."""
    for number in (1, 2):
        script = f"echo reads row {number}; echo no such column >&2; exit 3"
        await place.start("crashes", script, pod={"restarts_in_place": 3})
        exited = (await place.next(2))[1]
        assert isinstance(exited, port.Exited)
        assert (exited.exit_code, exited.reason) == (3, "")
        assert set(exited.log_tail) == {f"reads row {number}", "no such column"}
        assert await place.left() == []


async def test_a_program_that_is_killed_again_and_again_ends(place: Place) -> None:
    """Kubelet's pause between two starts (CrashLoopBackOff) is no end; one kill too many is."""
    script = "echo x >> /tmp/starts; echo start $(wc -l < /tmp/starts); exit 137"  # how a SIGKILL shows
    await place.start("loops", script, pod={"restarts_in_place": 2})
    started, exited = await place.next(2)
    assert isinstance(started, port.Started)
    assert exited == port.Exited("loops", None, "SIGKILL", ("start 3",))
    listed = await place.api.list("Event", place.namespace, fields=f"involvedObject.name={started.handle}")
    assert "BackOff" in {event["reason"] for event in listed.items}, "kubelet took it for a crash loop"
    assert await place.left() == []


async def test_memory_that_ran_out_is_told_though_the_container_runs_again(place: Place) -> None:
    """Also by who comes later, and with the lines of the start that took too much, not of the next one."""
    script = (
        f"if test -f /tmp/was; then {HOLDS}; fi; touch /tmp/was; echo takes much; "
        "exec dd if=/dev/zero of=/dev/null bs=200M count=5"
    )
    limits = port.Resources(limits={"memory": "32Mi"})
    before = jobs.Jobs(place.api, [place.namespace], owner=places.OWNER)
    await before.start(place.workload("greedy", script, resources=limits, pod={"restarts_in_place": 2}))
    await before.close(0)
    await place.until("greedy", runs_again)
    exited = (await place.next(2))[1]
    assert isinstance(exited, port.Exited)
    assert (exited.reason, exited.log_tail) == ("OutOfMemory", ("takes much",))
    assert await place.left() == []


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"pod": {"mounts": (TOO_SMALL,)}},
         "The program wrote more than 16Mi into /tmp, and its node ended it. Write less"),
        ({"resources": port.Resources(limits={"ephemeral-storage": "16Mi"})},
         "The program wrote more than its limit of 16Mi to its node's disk, and the node ended it. Write"),
    ],
    ids=["in one directory", "in all"],
)  # fmt: skip
async def test_a_node_puts_out_who_writes_too_much(
    place: Place, fields: dict[str, object], want: str
) -> None:
    """Evicted by kubelet, with the limit, the next step and the program's last lines."""
    if "ephemeral-storage" not in (await place.api.get("Node", place.hub.name))["status"]["capacity"]:
        pytest.skip("this lab's nodes do not measure their disk")
    await place.start("fills", FILLS, **fields)
    exited = (await place.next(2, 180))[1]
    assert isinstance(exited, port.Exited)
    assert (exited.exit_code, exited.signal, exited.reason) == (None, "SIGKILL", "Evicted")
    assert exited.message.startswith(want)
    assert last_lines(exited, "begins", "writes rows")
    assert await place.left() == []


@pytest.mark.parametrize(
    ("script", "signal"),
    [(HOLDS, "SIGTERM"), (HOLDS_ON, "SIGKILL")],
    ids=["one that minds", "one that does not"],
)
async def test_a_drained_node_puts_out_its_pods(place: Place, script: str, signal: str) -> None:
    """Evicted by the eviction API; who was killed by it does not start again in that pod."""
    await place.start("drained", script, pod={"restarts_in_place": 3})
    (started,) = await place.next(1)
    assert await place.first_line(started) == "begins"
    what = ("--force", "--delete-emptydir-data", "--pod-selector=hanse.dev/workload=drained", "--timeout=60s")
    try:
        await asyncio.to_thread(place.hub.kubectl, "drain", place.hub.name, *what)
    finally:
        await asyncio.to_thread(place.hub.kubectl, "uncordon", place.hub.name)
    (exited,) = await place.next(1)
    assert isinstance(exited, port.Exited)
    assert (exited.signal, exited.reason) == (signal, "Evicted")
    assert last_lines(exited, "begins")
    assert "its node is being drained" in exited.message
    assert await place.left() == []


async def test_a_node_makes_room_for_what_it_cannot_do_without(place: Place) -> None:
    """Kubelet itself ends a pod for one of the cluster's own: preempted, and no fault of the program's."""
    node = await place.api.get("Node", place.hub.name)
    most = {"cpu": f"{int(node['status']['allocatable']['cpu']) * 600}m"}
    await place.start("gives-way", HOLDS, resources=port.Resources(requests=most))
    (started,) = await place.next(1)
    assert await place.first_line(started) == "begins"
    critical = labs.shell_pod(
        "critical", HOLDS, nodeName=place.hub.name, priorityClassName="system-node-critical",
        container={"resources": {"requests": most}},
    )  # fmt: skip
    critical["metadata"]["namespace"] = place.namespace
    await place.api.create(critical)
    (exited,) = await place.next(1)
    assert isinstance(exited, port.Exited)
    assert (exited.signal, exited.reason) == ("SIGTERM", "Preempted")
    assert last_lines(exited, "begins")
    assert exited.message == "The pod was ended: a pod of higher priority needed its place."
    assert await place.left() == []
