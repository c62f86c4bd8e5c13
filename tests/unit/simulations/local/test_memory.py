"""Peak memory of named processes, as the kernel keeps it."""

import os
import subprocess
import sys

import pytest

from simulations.local import memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's high-water mark is read from /proc"
)


@pytest.fixture
def child():
    """A process that calls itself probe, has held 50 MB, holds them no more, and has a child of its own."""
    program = (
        "import subprocess, sys, os\n"
        "held = bytearray(50_000_000); del held\n"
        "inner = subprocess.Popen([sys.executable, '-c', \"print('up', flush=True); input()\"],"
        " env={**os.environ, 'HANSE_PROCESS': 'probe.inner'},"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "inner.stdout.readline(); print('up', flush=True); input(); inner.communicate(b'\\n')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "HANSE_PROCESS": "probe"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    yield process
    if process.returncode is None:
        process.communicate(b"\n")


def test_peaks_of_descendants(child) -> None:
    """The peak is told even after the memory was given back, also for a child's child."""
    peaks = memory.PeakMemory()
    peaks.sample_children()

    found = peaks.by_process()
    assert list(found) == ["probe", "probe.inner"]
    assert found["probe"] > 50_000_000
    assert 1_000_000 < found["probe.inner"] < found["probe"]


def test_peaks_stay(child) -> None:
    """What a process used stands after it has gone."""
    peaks = memory.PeakMemory()
    peaks.sample_children()
    before = peaks.by_process()
    child.communicate(b"\n")
    peaks.sample_children()

    assert peaks.by_process() == before


def test_processes_that_are_gone() -> None:
    """A process that ended between two looks is no error."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert memory.high_water_bytes(gone.pid) is None
    assert memory.process_name(gone.pid) is None
    assert list(memory.descendants(gone.pid)) == []
