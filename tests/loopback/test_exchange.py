"""Exchange.Session from both ends: whole rounds over real gRPC and mutual TLS."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import progress as progress_module
from coordinator.aggregator import service
from federation.api import reasons
from federation.flower import host
from federation.wire import limits as wire_limits
from tests.fakes import exchange as fakes

CLUSTERS = ("geneva", "lausanne", "zurich")
NODES = sorted(fakes.node(cluster) for cluster in CLUSTERS)


federation = fakes.federation


def trained(message: Message, change: float = 1.0, examples: int = 10) -> Message:
    """The model that was sent, plus a number."""
    arrays = ArrayRecord(
        {name: Array(np.asarray(array.numpy() + array.numpy().dtype.type(change)))
         for name, array in message.content["arrays"].items()}  # type: ignore[union-attr]
    )  # fmt: skip
    metrics = MetricRecord({"num-examples": examples, "loss": change})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def adds(change: float, gate: threading.Event | None = None) -> fakes.Answer:
    def answer(message: Message, context: Context) -> Message:
        if gate is not None:
            assert gate.wait(fakes.LIMIT_SECONDS)
        return trained(message, change)

    return answer


def model(*values: float, size: int = 1) -> ArrayRecord:
    return ArrayRecord({str(i): Array(np.full(size, value, np.float32)) for i, value in enumerate(values)})


def messages(
    record: ArrayRecord, clusters: tuple[str, ...] = CLUSTERS, kind: str = "train", **config: int
) -> list[Message]:
    content = RecordDict({"arrays": record, "config": ConfigRecord(dict(config))})
    return [Message(content, fakes.node(cluster), kind) for cluster in clusters]


def sources(replies: list[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def test_the_aggregate_is_the_same_whatever_the_order_of_arrival(federation: fakes.Federation) -> None:
    """Every order of three replies gives replies in node order, and FedAvg the same bits."""
    gates: dict[str, threading.Event] = {}
    federation.expect(*CLUSTERS)
    for index, cluster in enumerate(CLUSTERS):

        def answer(message: Message, context: Context, cluster: str = cluster, index: int = index) -> Message:
            assert gates[cluster].wait(fakes.LIMIT_SECONDS)
            return trained(message, 0.1 + index / 3, 7 + index)

        federation.client(cluster, answer)
    federation.started()
    assert federation.grid.get_node_ids() == NODES
    sent = model(0.1, 0.2, 0.7)
    aggregates = set()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for number, order in enumerate(itertools.permutations(CLUSTERS), start=1):
            gates.update((cluster, threading.Event()) for cluster in CLUSTERS)
            round_ = {"server-round": number}
            pending = pool.submit(federation.grid.send_and_receive, messages(sent, **round_))
            for cluster in order:
                gates[cluster].set()
                federation.until(
                    lambda c=cluster, n=number: (
                        (federation.seen(c).state, federation.seen(c).round) == ("Reported", n)
                    )
                )
            replies = pending.result(fakes.LIMIT_SECONDS)
            assert sources(replies) == NODES
            arrays, metrics = FedAvg().aggregate_train(number, replies)
            assert arrays is not None and metrics is not None
            aggregates.add((b"".join(array.data for array in arrays.values()), metrics["loss"]))
    assert len(aggregates) == 1


def test_a_reply_says_what_it_answers(federation: fakes.Federation) -> None:
    """Ids, nodes, run, group, type and time to live are as Flower's own hosts make them."""
    federation.expect("zurich")
    federation.client("zurich", adds(1))
    federation.started()
    message = Message(
        RecordDict({"arrays": model(1)}), fakes.node("zurich"), "train.mine", group_id="g7", ttl=50
    )
    (reply,) = federation.grid.send_and_receive([message])
    metadata = reply.metadata
    assert metadata.reply_to_message_id == message.metadata.message_id
    assert metadata.message_id not in ("", message.metadata.message_id)
    assert (metadata.src_node_id, metadata.dst_node_id) == (fakes.node("zurich"), host.SERVER_NODE_ID)
    assert (metadata.run_id, metadata.group_id, metadata.message_type) == (fakes.RUN_ID, "g7", "train.mine")
    assert 0 < metadata.ttl <= 50
    assert reply.content["arrays"]["0"].numpy() == 2  # type: ignore[union-attr]


def test_the_same_model_travels_once(federation: fakes.Federation) -> None:
    """The evaluation of a model that was trained with needs a header only."""
    federation.expect("zurich")
    federation.client("zurich", adds(1))
    federation.started()
    record = model(1, size=50_000)
    federation.grid.send_and_receive(messages(record, ("zurich",)))
    first = federation.seen("zurich").bytes_sent
    federation.grid.send_and_receive(messages(record, ("zurich",), "evaluate"))
    second = federation.seen("zurich").bytes_sent - first
    assert first > 200_000 > 5_000 > second


class Frames(progress_module.Progress):
    """Progress that also keeps how long each chunk was."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: dict[str, list[int]] = {"sent": [], "received": []}

    def transferred(self, cluster: str, *, sent: int = 0, received: int = 0) -> None:
        super().transferred(cluster, sent=sent, received=received)
        for way, length in (("sent", sent), ("received", received)):
            if length:
                self.lengths[way].append(length)


@pytest.mark.parametrize("clusters", [2, 32])
def test_chunks_are_as_long_as_the_number_of_clients_allows(tmp_path: Path, clusters: int) -> None:
    """Both ways, since a chunk of every client is in memory at once; the model is whole all the same."""
    progress, longest = Frames(), service.chunk_bytes(clusters)
    with fakes.Federation(tmp_path, progress=progress, chunk_bytes=longest) as federation:
        federation.expect("zurich")
        federation.client("zurich", adds(1))
        federation.started()
        (reply,) = federation.grid.send_and_receive(messages(model(1, size=300_000), ("zurich",)))
    assert np.array_equal(reply.content["arrays"]["0"].numpy(), np.full(300_000, 2, np.float32))  # type: ignore[union-attr]
    assert {way: max(lengths) for way, lengths in progress.lengths.items()} == {
        "sent": longest,
        "received": longest,
    }


def test_many_clients_have_no_more_in_memory_than_few() -> None:
    """From 2 clients to 32, a chunk and a window of each make the same sum; one client never has more than
    gRPC's limits allow, however few there are.
    """
    for clusters in (2, 4, 8, 16, 32):
        options = dict(service.server_options(clusters))
        assert clusters * service.chunk_bytes(clusters) == service.CHUNKS_BYTES
        assert clusters * options["grpc.http2.lookahead_bytes"] <= service.WINDOWS_BYTES
    assert service.chunk_bytes(1) == wire_limits.CHUNK_BYTES
    assert service.chunk_bytes(1000) == service.SHORTEST_CHUNK_BYTES


def test_state_is_kept_between_messages(federation: fakes.Federation) -> None:
    """What an app puts into its context is there at the next message, also after an exception."""

    def answer(message: Message, context: Context) -> Message:
        count = len(context.state.config_records)
        context.state[str(count)] = ConfigRecord()
        if count == 1:
            raise RuntimeError("the second one fails")
        return Message(RecordDict({"count": ConfigRecord({"n": count})}), reply_to=message)

    federation.expect("zurich")
    federation.client("zurich", answer)
    federation.started()
    got, seen = [], []
    for _ in range(3):
        got += federation.grid.send_and_receive(messages(model(1), ("zurich",), "query"))
        seen.append(federation.seen("zurich"))
    assert got[0].content["count"]["n"] == 0  # type: ignore[index]
    assert got[1].error.code == host.ERROR_APP_RAISED
    assert "the second one fails" in str(got[1].error.reason)
    assert got[2].content["count"]["n"] == 2  # type: ignore[index]
    assert [entry.reason for entry in seen] == ["", "ClientAppFailed", ""]
    assert seen[1].message.splitlines()[-1] == "RuntimeError: the second one fails"


@pytest.mark.parametrize(
    "raised, code, text",
    [
        (SystemExit(3), host.ERROR_APP_CRASHED, "exit(3)"),
        (GeneratorExit("x"), host.ERROR_APP_RAISED, "GeneratorExit"),
    ],
)
def test_an_app_that_ends_itself_is_an_error_reply(
    federation: fakes.Federation, raised: BaseException, code: int, text: str
) -> None:
    """Whatever an app raises, its message is answered."""

    def answer(message: Message, context: Context) -> Message:
        raise raised

    federation.expect("zurich")
    federation.client("zurich", answer)
    federation.started()
    (reply,) = federation.grid.send_and_receive(messages(model(1), ("zurich",)))
    assert reply.error.code == code
    assert text in str(reply.error.reason)


TWO = ArrayRecord({"0": Array(np.ones(1)), "1": Array(np.ones(1))})
BAD: list[tuple[str, dict[str, ArrayRecord | MetricRecord], str]] = [
    ("NotFinite", {"arrays": model(float("nan"), 1)}, "0"),
    ("ShapeMismatch", {"arrays": model(1, 1, size=2)}, "0"),
    ("DtypeMismatch", {"arrays": TWO}, "0"),
    ("MissingArray", {"arrays": model(1)}, "1"),
    ("MissingArray", {}, "no arrays"),
    ("UnexpectedArray", {"arrays": model(1, 1, 1)}, "2"),
    ("ExampleCountInvalid", {"arrays": model(1, 1), "m": MetricRecord({"num-examples": 0})}, "num-examples"),
    ("NormExceeded", {"arrays": model(1, 100)}, "norm"),
    ("TooLarge", {"arrays": model(1, 1), "more": model(1, size=300_000)}, "maximumUpdateBytes"),
]


def test_refused_updates_name_cluster_tensor_and_reason(tmp_path: Path) -> None:
    """Each poisoned update ends as an error reply and a named reason; the others and its client go on."""
    limits = fakes.checks.Limits(maximum_update_bytes=1_000_000, maximum_examples=100, maximum_norm=50.0)
    with fakes.Federation(tmp_path, limits=limits) as federation:
        federation.expect("geneva", "zurich")

        def poison(message: Message, context: Context) -> Message:
            number = message.content["config"]["case"]  # type: ignore[index]
            return Message(RecordDict(dict(BAD[int(number)][1])), reply_to=message)  # type: ignore[call-overload]

        federation.client("geneva", poison)
        federation.client("zurich", adds(1))
        federation.started()
        for number, (reason, _, names) in enumerate(BAD):
            replies = federation.grid.send_and_receive(
                messages(model(1, 1), ("geneva", "zurich"), case=number, **{"server-round": number + 1})
            )
            by_node = {reply.metadata.src_node_id: reply for reply in replies}
            refused = by_node[fakes.node("geneva")].error
            assert refused.code == host.ERROR_REPLY_UNAVAILABLE
            assert f"geneva: its reply was refused, {reason}" in str(refused.reason)
            assert by_node[fakes.node("zurich")].has_content()
            seen = federation.seen("geneva")
            assert seen.reason == reasons.ClusterReason.UPDATE_REFUSED
            assert seen.message.startswith(f"{reason}: ")
            assert names in seen.message


def test_a_client_that_vanishes_costs_its_own_reply(tmp_path: Path) -> None:
    """After the grace its message ends with error 5; the round goes on with the others."""
    rules = events.RoundRules(link_grace_seconds=0.05, start_grace_seconds=3600)
    with fakes.Federation(tmp_path, rules=rules) as federation:
        federation.expect("geneva", "zurich")
        reached = threading.Event()

        def hangs(message: Message, context: Context) -> Message:
            reached.set()
            assert gate.wait(fakes.LIMIT_SECONDS)
            return trained(message)

        gate = threading.Event()
        gone = federation.client("geneva", hangs)
        federation.client("zurich", adds(1))
        federation.started()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(federation.grid.send_and_receive, messages(model(1), ("geneva", "zurich")))
            assert reached.wait(fakes.LIMIT_SECONDS)
            gone.vanish()
            replies = pending.result(fakes.LIMIT_SECONDS)
        gate.set()
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        assert by_node[fakes.node("geneva")].error.code == host.ERROR_NODE_GONE
        assert by_node[fakes.node("zurich")].has_content()
        assert (federation.seen("geneva").state, federation.seen("geneva").reason) == ("Lost", "LinkLost")


def test_a_client_that_is_started_again_does_the_work_again(federation: fakes.Federation) -> None:
    """A new process of the same cluster gets the message that its predecessor had and did not answer."""
    federation.expect("zurich")
    reached, gate = threading.Event(), threading.Event()

    def hangs(message: Message, context: Context) -> Message:
        reached.set()
        assert gate.wait(fakes.LIMIT_SECONDS)
        return trained(message)

    first = federation.client("zurich", hangs)
    federation.started()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(federation.grid.send_and_receive, messages(model(1), ("zurich",)))
        assert reached.wait(fakes.LIMIT_SECONDS)
        first.vanish()
        federation.client("zurich", adds(5))
        (reply,) = pending.result(fakes.LIMIT_SECONDS)
    gate.set()
    assert reply.content["arrays"]["0"].numpy() == 6  # type: ignore[union-attr]


def test_a_newer_session_of_the_same_client_takes_over(federation: fakes.Federation) -> None:
    """The older one is told goodbye and does not come back; the newer one gets the work."""
    federation.expect("zurich")
    older = federation.client("zurich", adds(1))
    federation.started()
    federation.client("zurich", adds(2))
    end = older.end()
    assert (end.reason, end.failed) == ("SessionReplaced", False)
    (reply,) = federation.grid.send_and_receive(messages(model(1), ("zurich",)))
    assert reply.content["arrays"]["0"].numpy() == 3  # type: ignore[union-attr]


def test_goodbye_ends_a_client(federation: fakes.Federation) -> None:
    """The end of the training reaches every client."""
    federation.expect(*CLUSTERS)
    clients = [federation.client(cluster, adds(1)) for cluster in CLUSTERS]
    federation.started()
    federation.on_loop(lambda: federation.driver.close("TrainingEnded", "round 3 was the last"))
    for client in clients:
        end = client.end()
        assert (end.reason, end.message, end.failed) == ("TrainingEnded", "round 3 was the last", False)


def test_an_app_that_cannot_be_loaded_removes_its_node_with_the_reason(federation: fakes.Federation) -> None:
    """The training starts without it, and status says why."""
    federation.expect("geneva", "zurich")
    broken = federation.client("geneva", refuse=("AppNotLoadable", "No module named 'torch'"))
    federation.client("zurich", adds(1))
    federation.started()
    end = broken.end()
    assert (end.reason, end.message, end.failed) == ("AppNotLoadable", "No module named 'torch'", True)
    seen = federation.seen("geneva")
    assert (seen.state, seen.reason, seen.message) == ("Failed", "AppNotLoadable", "No module named 'torch'")
    assert federation.grid.get_node_ids() == [fakes.node("zurich")]


def test_the_end_of_a_training_ends_a_waiting_app(federation: fakes.Federation) -> None:
    """TrainingOver reaches the thread that waits for replies, with the reason."""
    federation.expect("zurich")
    gate = threading.Event()
    federation.client("zurich", adds(1, gate))
    federation.started()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(federation.grid.send_and_receive, messages(model(1), ("zurich",)))
        federation.until_state("zurich", "Training")
        federation.handle(events.StopAsked("Cancelled", "somebody deleted it"))
        with pytest.raises(driver_module.TrainingOver) as caught:
            pending.result(fakes.LIMIT_SECONDS)
    gate.set()
    assert (caught.value.reason, caught.value.message) == ("Cancelled", "somebody deleted it")
    with pytest.raises(driver_module.TrainingOver):
        federation.grid.get_node_ids()


@pytest.mark.parametrize("late, want", [(7.0, 7.0), (float("nan"), 2.0)])
def test_a_late_reply_counts_in_the_next_round_if_it_is_acceptable(
    late: float, want: float, tmp_path: Path
) -> None:
    """What came too late is checked as any other: poison does not stand in for anything."""
    rules = events.RoundRules(
        late_replies=events.LateReplies.NEXT_ROUND, link_grace_seconds=3600, start_grace_seconds=3600
    )
    with fakes.Federation(tmp_path, rules=rules) as federation:
        gate = threading.Event()
        calls: list[str] = []

        def slow(message: Message, context: Context) -> Message:
            calls.append(message.metadata.message_id)
            if len(calls) > 1:
                return trained(message)
            assert gate.wait(fakes.LIMIT_SECONDS)
            return Message(RecordDict({"arrays": model(late)}), reply_to=message)

        federation.expect("geneva", "zurich")
        federation.client("geneva", slow)
        federation.client("zurich", adds(1))
        federation.started()
        both = ("geneva", "zurich")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(federation.grid.send_and_receive, messages(model(1), both), timeout=3600)
            federation.until_state("zurich", "Reported")
            federation.handle(events.TimePassed(federation.driver.now() + 3601))
            assert sources(pending.result(fakes.LIMIT_SECONDS)) == [fakes.node("zurich")]
        gate.set()
        federation.until(lambda: not federation.driver._missed)
        replies = federation.grid.send_and_receive(messages(model(1), both))
        (reply,) = (reply for reply in replies if reply.metadata.src_node_id == fakes.node("geneva"))
        assert reply.content["arrays"]["0"].numpy() == want  # type: ignore[union-attr]
