"""Tests for the child's end of the lifeline."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from federation.runtime import lifeline

ROOT = pathlib.Path(__file__).parents[4]


def test_the_process_ends_when_the_pipe_closes() -> None:
    """Without a callback the end is at once, with the exit code that tells it."""
    ended: list[int] = []
    read_end, write_end = os.pipe()
    watcher = lifeline.hold(descriptor=read_end, end_process=ended.append)
    assert watcher is not None
    assert ended == []
    os.close(write_end)
    watcher.join(10)
    os.close(read_end)
    assert ended == [lifeline.EXIT_CODE]


def test_the_callback_comes_first() -> None:
    """A program may end cleanly; it is ended by force only after the bound."""
    order: list[object] = []
    read_end, write_end = os.pipe()
    watcher = lifeline.hold(
        lambda: order.append("callback"), clean_end_seconds=0, descriptor=read_end, end_process=order.append
    )
    assert watcher is not None
    os.close(write_end)
    watcher.join(10)
    os.close(read_end)
    assert order == ["callback", lifeline.EXIT_CODE]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the thread's raise is the case
def test_a_callback_that_raises_does_not_keep_the_process() -> None:
    """The end is certain whatever the callback does."""
    ended = threading.Event()
    read_end, write_end = os.pipe()

    def fails() -> None:
        raise RuntimeError("broken callback")

    watcher = lifeline.hold(fails, descriptor=read_end, end_process=lambda _: ended.set())
    assert watcher is not None
    os.close(write_end)
    watcher.join(10)
    os.close(read_end)
    assert ended.is_set()


def test_no_lifeline_without_a_pipe() -> None:
    """In a pod stdin is /dev/null, whose end of file means nothing."""
    null = os.open(os.devnull, os.O_RDONLY)
    assert lifeline.hold(descriptor=null) is None
    os.close(null)


def test_a_real_process_ends_with_its_parent() -> None:
    """A process deep in its work ends when the other end of its stdin is closed."""
    program = (
        "from federation.runtime import lifeline; import time; "
        "lifeline.hold(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"up\n"
        process.stdin.close()
        assert process.wait(30) == lifeline.EXIT_CODE


FIRST = (
    "import sys, threading\n"
    "from federation.runtime import lifeline\n"
    "lifeline.end_when_asked()\n"
    "print('up', flush=True)\n"
    "threading.Event().wait()\n"
)


def test_the_first_process_of_a_container_ends_when_it_is_asked() -> None:
    """In a namespace of its own, where the kernel lets SIGTERM end only what has a handler for it."""
    namespace = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], capture_output=True).returncode
    ):
        pytest.skip("no namespace of processes can be made here")
    argv = [*namespace, sys.executable, "-c", FIRST]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "up\n"
        (first,) = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        try:
            os.kill(int(first), signal.SIGTERM)
            assert outer.wait(30) == 128 + signal.SIGTERM
        finally:
            outer.kill()
