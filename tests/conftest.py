"""What every test session shares: seeds that can be repeated, and no way out of this machine.

The session's seed is printed in the header. `HANSE_TEST_SEED=N make test` repeats a run: it seeds hypothesis
and the `rng` fixture. In CI the seed is fixed, so that a change fails for what it changed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

# Before flwr is imported by anything: it would send usage events to its makers.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import hypothesis
import pytest

import federation.trust  # noqa: F401  (before anything imports grpc: no TLS 1.2)
from federation.kube import client
from tests.fakes import controlplane

IN_CI = os.environ.get("CI") in {"true", "1"}
SEED = int(os.environ.get("HANSE_TEST_SEED") or (20260101 if IN_CI else secrets.randbelow(2**32)))

os.environ["HANSE_TEST_SEED"] = str(SEED)  # the processes of one run share it

# Deadlines measure the machine, not the code: timing decides no test.
hypothesis.settings.register_profile(
    "hanse",
    deadline=None,
    print_blob=True,
    database=None if IN_CI else hypothesis.settings.default.database,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("hanse")


def pytest_configure(config: pytest.Config) -> None:
    """Give hypothesis the session's seed, unless the command line names one; let no loop be made unasked.

    looptime asks for the current event loop before each test; where none was ever set, asyncio then makes
    one (or, from Python 3.12 on, warns), which nobody closes. Saying that there is none ends that.
    """
    asyncio.set_event_loop(None)
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = SEED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for the real API server is a test of the control plane, also where nobody has written so."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker("controlplane")


def pytest_collection_finish() -> None:
    """What is loaded is no garbage: looking through all of it, again and again, took a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that leaves itself out fails: what was not run shows nothing."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"in CI no test may be left out: {reason}"
    return report


def pytest_report_header(config: pytest.Config) -> str:
    """Say which seed repeats this run."""
    return f"seed: {SEED} (repeat with HANSE_TEST_SEED={SEED})"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that differs by test and repeats with the session's seed."""
    return random.Random(f"{SEED}:{request.node.nodeid}")


@pytest.fixture(autouse=True)
def _umask_and_environment_stay() -> Iterator[None]:
    """A test that changes the file mode mask or the working directory does not change it for the next."""
    mask = os.umask(0o022)
    os.umask(mask)
    here = Path.cwd()
    yield
    os.umask(mask)
    if Path.cwd() != here:
        os.chdir(here)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[controlplane.ControlPlane]:
    """One real API server for the session, with Hanse's kinds; each test takes a namespace of its own."""
    lacking = controlplane.missing()
    if lacking:
        pytest.skip(lacking)
    plane = controlplane.start(users={"nobody": []})
    yield plane
    plane.stop()


@pytest.fixture
async def api(control_plane: controlplane.ControlPlane) -> AsyncIterator[client.Client]:
    """The client of the API server's administrator."""
    async with await client.Client.connect(control_plane.kubeconfig) as connected:
        yield connected
