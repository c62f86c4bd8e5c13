"""Signals, kill -9 first of all, to what runs on a lab's nodes, from the machine that all of them are on."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def kill(*words: str, pod: str = "", with_signal: signal.Signals = signal.SIGKILL) -> int:
    """Signal every process whose command has all these words, and return how many there were.

    pod: the uid of the pod that they are in; empty: anywhere.
    """
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            groups = (entry / "cgroup").read_text()
            command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        inside = pod in groups or pod.replace("-", "_") in groups
        if inside and all(word in command for word in words):
            os.kill(int(entry.name), with_signal)
            killed += 1
    return killed
