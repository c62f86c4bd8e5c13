"""Clusters that are not waited for, over real gRPC and mutual TLS."""

from __future__ import annotations

import dataclasses
import threading
import time
from fractions import Fraction
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

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
