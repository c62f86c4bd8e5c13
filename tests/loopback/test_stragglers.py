"""Clusters that are not waited for, over real gRPC and mutual TLS."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from coordinator.aggregation import events
from edge_agent.client import keeping
from federation.api import reasons
from tests.fakes import exchange as fakes

BOTH = ("geneva", "zurich")


def messages(number: int, kind: str = "train") -> list[Message]:
    """One message to each of the two."""
    content = RecordDict({"config": ConfigRecord({"server-round": number}), "arrays": ArrayRecord()})
    return [Message(content, fakes.node(cluster), kind) for cluster in BOTH]


def answered(message: Message) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


def test_a_client_leaves_out_what_nobody_waits_for(tmp_path: Path) -> None:
    """The first of two is taken; the other finishes what it has begun, and does not begin with the rest."""
    rules = dataclasses.replace(fakes.RULES, over_provision_fraction=Fraction(1))
    limits = dataclasses.replace(fakes.LIMITS, structure=fakes.checks.Structure.ANY)
    with fakes.Federation(tmp_path, rules=rules, limits=limits) as federation:
        gate, begun, calls = threading.Event(), threading.Event(), []

        def slow(message: Message, context: Context) -> Message:
            calls.append(message.content["config"]["server-round"])  # type: ignore[index]
            begun.set()
            assert gate.wait(fakes.LIMIT_SECONDS)
            return answered(message)

        def quick(message: Message, context: Context) -> Message:
            assert begun.wait(fakes.LIMIT_SECONDS)
            return answered(message)

        federation.expect(*BOTH)
        straggler = federation.client("geneva", slow)
        federation.client("zurich", quick)
        federation.started()
        for number in (1, 2):
            (reply,) = federation.grid.send_and_receive(messages(number))
            assert reply.metadata.src_node_id == fakes.node("zurich")
            assert federation.seen("geneva").reason == reasons.ClusterReason.ENOUGH_REPORTED
            until = time.monotonic() + fakes.LIMIT_SECONDS
            while len(straggler.withdrawn) < number:
                assert time.monotonic() < until
                time.sleep(0.005)
        gate.set()
        replies = federation.grid.send_and_receive(messages(3, "query"))
        assert {reply.metadata.src_node_id for reply in replies} == {fakes.node(name) for name in BOTH}
        assert calls == [1, 3]


def trained(message: Message, by: float) -> Message:
    """The array that was sent, and a little more."""
    (old,) = message.content["arrays"].values()  # type: ignore[union-attr]
    arrays = ArrayRecord({"w": Array(np.asarray(old.numpy() + np.float32(by)))})
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
    )


def one_round(federation: fakes.Federation, number: int) -> dict[str, float]:
    """Send arrays of the round's number; what the app is given, by cluster."""
    assert len(federation.grid.get_node_ids()) == 2
    arrays = ArrayRecord({"w": Array(np.full(50_000, number, np.float32))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
    replies = federation.grid.send_and_receive(
        [Message(content, fakes.node(cluster), "train") for cluster in BOTH]
    )
    names = {fakes.node(name): name for name in BOTH}
    return {
        names[reply.metadata.src_node_id]: float(reply.content["arrays"]["w"].numpy()[0])  # type: ignore[union-attr]
        for reply in replies
    }


@pytest.mark.parametrize("reply", ["kept", "under way"])
def test_a_late_reply_counts_in_the_next_round_after_a_restart(reply: str, tmp_path: Path) -> None:
    """One that was kept is there for the next aggregator; one that was under way finds that it is expected.

    The app runs from its top each time. zurich adds 0.25 to what it is sent, geneva 0.5; the first is taken.
    """
    rules = dataclasses.replace(
        fakes.RULES, over_provision_fraction=Fraction(1), late_replies=events.LateReplies.NEXT_ROUND
    )
    gate, begun, kept = threading.Event(), threading.Event(), tmp_path / "kept"
    calls: list[int] = []

    def slow(message: Message, context: Context) -> Message:
        calls.append(int(message.content["config"]["server-round"]))  # type: ignore[index, call-overload, arg-type]
        begun.set()
        assert gate.wait(fakes.LIMIT_SECONDS)
        return trained(message, 0.5)

    def quick(message: Message, context: Context) -> Message:
        assert begun.wait(fakes.LIMIT_SECONDS)
        return trained(message, 0.25)

    def begin(federation: fakes.Federation, keep: keeping.Keep) -> fakes.Client:
        federation.expect(*BOTH)
        federation.client("zurich", quick)
        return federation.client("geneva", slow, keep=keep)

    def came(federation: fakes.Federation) -> None:
        federation.until(lambda: fakes.node("geneva") not in federation.driver._missed)

    with fakes.Federation(tmp_path / "1", rules=rules) as first:
        geneva = begin(first, keep := keeping.Keep(kept, bytes(32)))
        first.started()
        assert one_round(first, 1) == {"zurich": 1.25}
        if reply == "under way":
            geneva.vanish()
        gate.set()
        if reply == "kept":
            came(first)
    keep.close()
    shutil.copytree(tmp_path / "1" / "journal", tmp_path / "2" / "journal")

    with fakes.Federation(tmp_path / "2", rules=rules) as second:
        begin(second, keep := keeping.Keep(kept, bytes(32)))
        assert one_round(second, 1) == {"zurich": 1.25}
        second.grid.get_node_ids()  # from here on it is live
        came(second)
        assert one_round(second, 2) == {"geneva": 1.5}
        assert calls == [1]
    keep.close()
    shutil.copytree(tmp_path / "2" / "journal", tmp_path / "3" / "journal")

    with fakes.Federation(tmp_path / "3", rules=rules) as third:
        assert one_round(third, 1) == {"zurich": 1.25}
        third.grid.get_node_ids()
        assert one_round(third, 2) == {"geneva": 1.5}
