"""Which reply is the odd one, and how that reads."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from coordinator.aggregator import consistency
from federation.flower import host, replies

host.prepare_process(run_id=1, node_id=1)  # Message() wants to know whose process this is


def reply(*metric_keys: str, arrays: tuple[str, ...] = ("w",), note: str = "") -> Message:
    """A reply with these metrics and arrays."""
    content = RecordDict({"metrics": MetricRecord(dict.fromkeys(metric_keys, 1.0))})
    content["arrays"] = ArrayRecord({name: Array(np.zeros(1)) for name in arrays})
    if note:
        content[note] = ConfigRecord({"any": "thing"})
    return Message(content, reply_to=Message(RecordDict(), 5, "train"))


def error() -> Message:
    """An error reply."""
    return Message(Error(2, "raised"), reply_to=Message(RecordDict(), 5, "train"))


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ([], []),
        ([error(), error()], []),
        ([reply("loss")] * 3, []),
        ([reply("loss"), reply("loss", note="free"), reply("loss")], []),
        ([reply("loss"), reply("gain")], []),
        ([reply("loss"), reply("gain"), reply("pain")], []),
        ([reply("loss"), error(), reply("loss"), reply("loss", "extra")], [3]),
        ([reply("n", "loss"), reply("loss"), reply("n", "loss")], [1]),
        ([reply("loss"), reply("loss"), reply("loss", arrays=("w", "b"))], [2]),
    ],
)
def test_odd_ones(given: list[Message], want: list[int]) -> None:
    """Only a clear majority tells who is odd; errors and config records have no say."""
    assert [odd.index for odd in consistency.odd_ones(given)] == want


def test_the_difference_in_words() -> None:
    """What is missing and what is there besides."""
    (odd,) = consistency.odd_ones([reply("num-examples"), reply("num-examples"), reply("other")])

    assert odd.how == (
        "its reply lacks metrics metrics.num-examples and has metrics metrics.other besides, "
        "unlike most others'"
    )


def test_refused_in_the_replys_place() -> None:
    """The error keeps who answered what."""
    given = reply("loss")
    error_reply = replies.refused(given, "odd")

    assert error_reply.has_error()
    assert error_reply.error.reason == "odd"
    assert error_reply.metadata.src_node_id == given.metadata.src_node_id
    assert error_reply.metadata.reply_to_message_id == given.metadata.reply_to_message_id
