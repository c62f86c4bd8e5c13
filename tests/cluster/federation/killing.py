"""Signals, kill -9 first of all, to what runs on a lab's nodes, from the machine that all of them are on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cluster.federation.trainings import Clusters


def kill(*words: str, pod: str = "", node: str = "", with_signal: signal.Signals = signal.SIGKILL) -> int:
    """Signal every process whose command has all these words, and return how many there were.

    pod: the uid of the pod that they are in; empty: anywhere. node: the directory of the cluster whose node
    has started them; empty: whoever has.
    """
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            groups = (entry / "cgroup").read_text()
            command = _command(entry)
            starter = _command(entry.with_name(_parent(entry))) if node and words[0] in command else ""
        except OSError:
            continue
        inside = pod in groups or pod.replace("-", "_") in groups
        if inside and node in starter and all(word in command for word in words):
            os.kill(int(entry.name), with_signal)
            killed += 1
    return killed


def _command(process: Path) -> str:
    return (process / "cmdline").read_bytes().decode("utf-8", "replace")


def _parent(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[1]


def kill_in_pod(clusters: Clusters, cluster: str, namespace: str, selector: str, word: str) -> None:
    """kill -9 of the processes whose command has a word, in the one pod that a selector finds."""
    (pod,) = clusters.get(cluster, "pods", namespace, "-l", selector)
    assert kill(word, pod=pod["metadata"]["uid"])


def kill_program(
    clusters: Clusters, cluster: str, name: str, with_signal: signal.Signals = signal.SIGKILL
) -> None:
    """Signal a program of a cluster's node; the node starts it again when it ends."""
    node = f"{clusters.lab.kubeconfig(cluster).parent}/"
    assert kill(name, node=node, with_signal=with_signal) == 1


def delete_pods(clusters: Clusters, cluster: str, namespace: str, selector: str) -> None:
    """Delete pods without letting them say anything."""
    assert clusters.get(cluster, "pods", namespace, "-l", selector)
    now = ("--grace-period=0", "--force", "--wait=false")
    clusters.kubectl(cluster, "delete", "pod", "-n", namespace, "-l", selector, *now)
