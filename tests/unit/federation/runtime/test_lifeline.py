"""Tests for the child's end of the lifeline."""

import os
import pathlib
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
