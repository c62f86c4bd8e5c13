"""What every implementation of the runtime port must do; a new one joins by adding its fixture parameter."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import stat
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from federation.runtime import port, processes

RUNTIMES = ["processes"]


@dataclasses.dataclass
class Place:
    """A runtime under test, and how to write workloads for it."""

    runtime: port.Runtime
    workload: Callable[..., port.Workload]


@pytest.fixture(params=RUNTIMES)
async def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Place]:
    """Give each runtime of RUNTIMES in turn, and close it afterwards."""

    def workload(name: str, program: str, **fields: object) -> port.Workload:
        fields = {"directory": tmp_path / "work" / name, **fields}
        return port.Workload(name=name, argv=(sys.executable, "-c", program), **fields)

    runtime = processes.Processes(tmp_path / "logs")
    yield Place(runtime, workload)
    await runtime.close(0)


async def until_exited(runtime: port.Runtime) -> list[port.WorkloadEvent]:
    """Read events up to the first Exited."""
    seen: list[port.WorkloadEvent] = []
    async with contextlib.aclosing(runtime.events()) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, port.Exited):
                break
    return seen


async def until_file(path: pathlib.Path) -> None:
    """Wait until the workload wrote `path`, through a pipe that it opens: no polling."""
    await asyncio.to_thread(path.read_bytes)


def ready_pipe(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a named pipe that a workload opens to say that it is up."""
    path = tmp_path / "ready"
    os.mkfifo(path)
    return path


async def test_a_workload_that_ends_by_itself_is_started_and_then_exited(place: Place) -> None:
    """Its exit code and the last lines of its output are told, in order, once."""
    await place.runtime.start(place.workload("ends", "print('one'); print('two'); raise SystemExit(3)"))
    started, exited = await until_exited(place.runtime)
    assert isinstance(started, port.Started)
    assert started.name == "ends"
    assert exited == port.Exited("ends", 3, None, ("one", "two"))
    assert await place.runtime.list() == ()


async def test_the_log_tail_is_bounded(place: Place) -> None:
    """However much a workload writes, at most LOG_TAIL_LINES lines come with its end."""
    await place.runtime.start(place.workload("talks", "for i in range(20000): print('line', i)"))
    exited = (await until_exited(place.runtime))[-1]
    assert isinstance(exited, port.Exited)
    assert exited.log_tail == tuple(f"line {i}" for i in range(20000 - port.LOG_TAIL_LINES, 20000))


async def test_files_arrive_private_in_the_working_directory(place: Place) -> None:
    """A relative name finds the file; nobody else may read the file or its directory."""
    program = "import os; print(open('key').read(), oct(os.stat('key').st_mode), oct(os.stat('.').st_mode))"
    await place.runtime.start(place.workload("reads", program, files={"key": b"secret"}))
    exited = (await until_exited(place.runtime))[-1]
    assert isinstance(exited, port.Exited)
    assert exited.log_tail == (f"secret {oct(stat.S_IFREG | 0o600)} {oct(stat.S_IFDIR | 0o700)}",)


async def test_the_environment_is_what_the_workload_sets(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the workload sets arrives; what lies in this process's environment does not."""
    monkeypatch.setenv("CLOUD_TOKEN", "t")
    program = "import os; print(os.environ.get('CLOUD_TOKEN'), os.environ.get('WANTED'))"
    await place.runtime.start(place.workload("looks", program, environment={"WANTED": "yes"}))
    exited = (await until_exited(place.runtime))[-1]
    assert isinstance(exited, port.Exited)
    assert exited.log_tail == ("None yes",)


async def test_stop_lets_a_workload_end_cleanly(place: Place, tmp_path: pathlib.Path) -> None:
    """A workload that minds the request ends with its own exit code."""
    ready = ready_pipe(tmp_path)
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        f"open({str(ready)!r}, 'w').close()\n"
        "while True: time.sleep(60)\n"
    )
    await place.runtime.start(place.workload("minds", program))
    await until_file(ready)
    await place.runtime.stop("minds", 30)
    assert (await until_exited(place.runtime))[-1] == port.Exited("minds", 0, None, ())


async def test_stop_ends_a_workload_that_does_not_listen_with_its_children(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """After the grace it is ended by force, and so is what it started."""
    ready = ready_pipe(tmp_path)
    held = tmp_path / "held"
    os.mkfifo(held)
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"os.fork()\nfile = open({str(held)!r}, 'w')\n"
        f"open({str(ready)!r}, 'w').close() if os.getppid() == {os.getpid()} else None\n"
        "while True: time.sleep(60)\n"
    )
    await place.runtime.start(place.workload("deaf", program))
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    await until_file(ready)
    await place.runtime.stop("deaf", 0)
    assert (await until_exited(place.runtime))[-1] == port.Exited("deaf", None, "SIGKILL", ())
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # the last writer, the forked child, is gone
    os.close(reader)


async def test_children_that_a_workload_leaves_behind_go_with_it(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """Exited means that nothing of the workload is left."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    program = f"import os, time\nfile = open({str(held)!r}, 'w')\nif os.fork() == 0: time.sleep(600)\n"
    await place.runtime.start(place.workload("leaves", program))
    await until_exited(place.runtime)
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_second_workload_of_a_running_name_is_refused(place: Place) -> None:
    """The first keeps running."""
    sleeper = place.workload("twice", "import time; time.sleep(600)")
    await place.runtime.start(sleeper)
    with pytest.raises(port.WorkloadExists, match="twice"):
        await place.runtime.start(sleeper)
    assert [running.name for running in await place.runtime.list()] == ["twice"]


async def test_a_name_can_be_used_again_after_its_end(place: Place) -> None:
    """A restart is a start of the same name."""
    for _ in range(2):
        await place.runtime.start(place.workload("again", "pass"))
        exited = (await until_exited(place.runtime))[-1]
        assert isinstance(exited, port.Exited)
        assert exited.succeeded


async def test_stopping_what_does_not_run_is_no_error(place: Place) -> None:
    """The wish is already true."""
    await place.runtime.stop("nobody", 0)


async def test_a_program_that_does_not_exist_is_not_started(place: Place, tmp_path: pathlib.Path) -> None:
    """The caller is told why, and nothing is listed."""
    missing = port.Workload(name="missing", argv=("/no/such/program",), directory=tmp_path / "missing")
    with pytest.raises(port.WorkloadNotStarted, match="missing"):
        await place.runtime.start(missing)
    assert await place.runtime.list() == ()


async def test_close_ends_everything_and_the_events(place: Place) -> None:
    """Each running workload exits; readers come to an end; nothing starts any more."""
    for name in ("first", "second"):
        await place.runtime.start(place.workload(name, "import time; time.sleep(600)"))
    await place.runtime.close(0)
    events = [event async for event in place.runtime.events()]
    assert {event.name for event in events if isinstance(event, port.Exited)} == {"first", "second"}
    assert await place.runtime.list() == ()
    with pytest.raises(port.RuntimeClosed):
        await place.runtime.start(place.workload("late", "pass"))


@pytest.mark.parametrize("name", ["", "Upper", "-dash", "a" * 64, "a/b", "../a"])
def test_a_bad_name_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    """Names become files and Job names, so they are checked before anything starts."""
    with pytest.raises(port.InvalidWorkload):
        port.Workload(name=name, argv=("true",), directory=tmp_path)


@pytest.mark.parametrize("name", ["../key", "a/b", ".hidden", ""])
def test_a_bad_file_name_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    """A workload's file cannot leave its directory."""
    with pytest.raises(port.InvalidWorkload):
        port.Workload(name="files", argv=("true",), directory=tmp_path, files={name: b""})
