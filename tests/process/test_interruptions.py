"""Ctrl-C, SIGTERM and SIGKILL, at start-up and in mid-round: nothing of a run outlives its command."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]


# 127.0.0.1 in /proc/net/tcp, and the same address in /proc/net/tcp6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def _scenario(tmp_path: Path) -> tuple[Path, Path]:
    """Two edges that train for longer than any test runs, and where they say that they began."""
    signals = tmp_path / "signals"
    signals.mkdir()
    edges = {name: {"behaviour": "pause", "seconds": 600} for name in ("edge-1", "edge-2")}
    spec = {
        "app": {"source": {"path": "app"}, "runConfig": {"signals": str(signals)}},
        "round": {"deadlineSeconds": 600},
    }
    return federations.Federation(edges, spec).write(tmp_path / "scenario"), signals


def _in_mid_round(run: running.Run, signals: Path) -> None:
    run.until(lambda: len(list(signals.iterdir())) == 2, "both clients train")


def _at_start(run: running.Run, signals: Path) -> None:
    run.until(run.processes, "its first process")


def _while_joining(run: running.Run, signals: Path) -> None:
    endpoints = "*/coordinator/state/endpoints.json"
    run.until(lambda: list(run.temporary.glob(endpoints)), "the coordinator listens")


STAGES = [_at_start, _while_joining, _in_mid_round]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__.strip("_"))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted(
    number: signal.Signals, stage: Callable[[running.Run, Path], None], start, tmp_path: Path
) -> None:
    """One sentence, an exit code that says so, and no process, socket or file is left afterwards."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario)
    stage(run, signals)
    run.listening()

    run.signal(number)
    code = run.wait(30)

    assert code in (130, 143), run.told()
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    run.assert_nothing_left()


def test_interrupted_twice(start, tmp_path: Path) -> None:
    """An impatient second Ctrl-C leaves nothing behind either."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario)
    _in_mid_round(run, signals)
    run.listening()

    run.signal(signal.SIGINT)
    run.signal(signal.SIGINT)
    run.wait(30)

    run.assert_nothing_left(running.GONE_SECONDS)


@pytest.mark.parametrize(
    "stage", [_while_joining, _in_mid_round], ids=lambda stage: stage.__name__.strip("_")
)
def test_killed(stage: Callable[[running.Run, Path], None], start, tmp_path: Path) -> None:
    """After SIGKILL of the command its processes end by themselves, and its temporary files go."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario)
    stage(run, signals)
    run.listening()

    run.signal(signal.SIGKILL)
    run.wait(30)

    run.assert_nothing_left(running.GONE_SECONDS)


def test_while_it_runs(start, tmp_path: Path) -> None:
    """Keys are private, ports are on loopback only and speak TLS only, no argument holds a secret."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario)
    _in_mid_round(run, signals)

    keys = list(run.key_files())
    assert len(keys) >= 1 + 2 + 2 * 2, "the CA's, the coordinator's, the aggregator's, and two for each edge"
    for key in keys:
        assert running.mode(key) == 0o600, key
        assert running.mode(key.parent) == 0o700, key.parent
    for token in run.temporary.rglob("*.token"):
        assert running.mode(token) == 0o600
    ports = run.listening()
    assert len(ports) >= 3, "enrollment, control and exchange"
    assert run.addresses <= LOOPBACK
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            plain.settimeout(20)
            assert not plain.recv(100).startswith(b"\x00\x00"), f"port {port} speaks HTTP/2 without TLS"
    for arguments in run.processes().values():
        assert not [
            argument for argument in arguments if "PRIVATE" in argument or argument.startswith("hanse_")
        ]


def test_broken_pipe(start, tmp_path: Path) -> None:
    """When an edge agent is killed from outside, the training ends with a reason; it does not hang."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario, "-o", "json", "--timeout", "90")
    _in_mid_round(run, signals)
    agents = [
        pid
        for pid, arguments in run.processes().items()
        if "edge_agent" in arguments and "edge-1" in " ".join(arguments)
    ]
    assert agents

    for pid in agents:
        os.kill(pid, signal.SIGKILL)

    assert run.wait(60) == 1, run.told()
    assert run.report["state"] == "Failed"
    assert run.report["reason"] == "QuorumLost", run.report
    assert "edge-1" in run.report["message"]
    run.assert_nothing_left()


@pytest.mark.parametrize("which", ["coordinator", "coordinator.aggregator"])
def test_hub_process_killed(which: str, start, tmp_path: Path) -> None:
    """When a process of the hub dies, the command ends with a sentence; it does not hang."""
    scenario, signals = _scenario(tmp_path)
    run = start("simulate", scenario, "-o", "json", "--timeout", "60")
    _in_mid_round(run, signals)
    pids = [pid for pid, arguments in run.processes().items() if which in arguments]
    assert len(pids) == 1

    os.kill(pids[0], signal.SIGKILL)

    assert run.wait(90) == 1, run.told()
    assert "Traceback" not in run.stderr
    run.assert_nothing_left(running.GONE_SECONDS)
