"""The runtime over Jobs on a real cluster: a pod is a pod, and the kernel ends who takes too much."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from federation.kube import containers, errors
from federation.runtime import port
from tests.cluster.places import Place

PATH = pathlib.PurePosixPath


async def test_a_program_sees_its_files_and_nothing_is_left(place: Place) -> None:
    """Files, Secrets and a blob in parts are there, the root is read-only; its end is told whole."""
    script = (
        "cat config.json; cat /identity/key; cat /app/part-* | wc -c; id -u; "
        "touch /x 2>/dev/null || echo root is closed; touch /tmp/x && echo tmp is open; "
        'echo \'{"reason": "Said", "message": "So it was."}\' > /dev/termination-log; exit 3'
    )
    await place.start(
        "whole",
        script,
        files={"config.json": b"{}\n"},
        pod={
            "secret_directories": {PATH("/identity"): {"key": b"k\n"}},
            "blobs": {PATH("/app"): bytes(2**21)},
        },
    )
    exited = (await place.next(2))[1]
    log = ("{}", "k", "2097152", "65532", "root is closed", "tmp is open")
    words = '{"reason": "Said", "message": "So it was."}\n'
    assert exited == port.Exited("whole", 3, None, log, "Said", "So it was.", last_words=words)
    assert await place.left() == []


async def test_a_killed_program_starts_again_in_its_pod(place: Place) -> None:
    """With what its volumes hold, as often as is asked; after that it is told as ended by the signal."""
    script = "echo x >> /tmp/starts; wc -l < /tmp/starts; exit 137"  # how a SIGKILL shows
    await place.start("killed", script, pod={"restarts_in_place": 1})
    exited = (await place.next(2))[1]
    assert isinstance(exited, port.Exited)
    assert (exited.exit_code, exited.signal) == (None, "SIGKILL")
    assert await place.left() == []

    script = "test -f /tmp/was && echo again && exit 0; touch /tmp/was; exit 137"
    await place.start("once", script, pod={"restarts_in_place": 1})
    assert (await place.next(2))[1] == port.Exited("once", 0, None, ("again",))
    assert await place.left() == []


@pytest.mark.parametrize(
    ("trap", "want"),
    [
        ("trap 'echo bye; exit 0' TERM", ("bye", 0, None)),
        ("trap '' TERM", ("up", None, "SIGKILL")),
    ],
    ids=["one that minds", "one that does not"],
)
async def test_stop_waits_and_then_ends_it_by_force(
    place: Place, trap: str, want: tuple[str, int | None, str | None]
) -> None:
    """A program that minds says its last word, one that does not is killed after the grace."""
    await place.start("stopped", f"{trap}; echo up; while true; do sleep 1; done")
    (started,) = await place.next(1)
    async with asyncio.timeout(30):
        await place.first_line(started)
        await place.runtime.stop("stopped", 4)
    exited = (await place.next(1))[0]
    assert isinstance(exited, port.Exited)
    assert (exited.log_tail[-1], exited.exit_code, exited.signal) == want
    assert await place.left() == []


async def test_the_kernel_ends_who_takes_too_much(place: Place) -> None:
    """OutOfMemory, with the limit and what to do."""
    limits = port.Resources(limits={"memory": "32Mi"})
    await place.start("greedy", "dd if=/dev/zero of=/dev/null bs=200M count=5", resources=limits)
    exited = (await place.next(2))[1]
    assert isinstance(exited, port.Exited)
    assert exited.reason == "OutOfMemory"
    assert "32Mi" in exited.message


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"resources": port.Resources(requests={"memory": "900Gi"})}, "Unschedulable"),
        ({"pod": {"mounts": (port.Mount(PATH("/d"), {"persistentVolumeClaim": {"claimName": "mri"}}),)}},
         "VolumeNotMounted"),
        ({"pod": {"mounts": (port.Mount(PATH("/d"), {"configMap": {"name": "none"}}),)}}, "VolumeNotMounted"),
        ({"pod": {"mounts": (port.Mount(PATH("/d"), {"hostPath": {"path": "/srv"}}),)}}, "NotAdmitted"),
    ],
    ids=["too large", "no claim", "no ConfigMap", "not restricted"],
)  # fmt: skip
async def test_why_it_waits_is_said_within_ten_seconds(
    place: Place, fields: dict[str, object], want: str
) -> None:
    """And it can be stopped, though it never ran."""
    await place.start("waits", "true", **fields)
    (waiting,) = await place.next(1, 10)
    assert isinstance(waiting, port.Waiting)
    assert waiting.reason == want
    await place.runtime.stop("waits", 1)
    assert await place.left() == []


async def test_a_program_that_is_not_in_the_image_never_started(place: Place) -> None:
    """It is told as ended, with the runtime's words."""
    await place.start("missing", "", argv=("/no/such",))
    (exited,) = await place.next(1)
    assert isinstance(exited, port.Exited)
    assert (exited.reason, "no such file" in exited.message) == ("ContainerNotCreated", True)


async def test_a_file_is_read_out_of_a_pod(place: Place) -> None:
    """Its bytes come whole; one that is not there is said in the program's words."""
    await place.start(
        "holds", "head -c 3000000 /dev/zero > /tmp/model; echo up; while true; do sleep 1; done"
    )
    (started,) = await place.next(1)
    assert isinstance(started, port.Started)
    where = (place.api, place.namespace, started.handle)
    async with asyncio.timeout(60):
        await place.first_line(started)
        assert sum([len(part) async for part in containers.read_file(*where, "/tmp/model")]) == 3000000
        with pytest.raises(errors.CommandFailed, match="can't open '/tmp/none'"):
            [part async for part in containers.read_file(*where, "/tmp/none")]
    await place.runtime.stop("holds", 0)
