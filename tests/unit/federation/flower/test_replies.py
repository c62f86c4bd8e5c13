"""Messages that Hanse itself makes or marks."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common import Code, GetParametersRes, Status, ndarrays_to_parameters
from flwr.compat.common import recorddict_compat

from federation.flower import replies
from tests.fakes import exchange as fakes

process = fakes.process


def test_an_error_reply_keeps_metadata_and_not_content() -> None:
    """It says who was asked and for what; the model that was sent is not kept alive for it."""
    message = Message(
        RecordDict({"a": ArrayRecord({"w": Array(np.ones(3))})}), 2**64 - 1, "train.x", group_id="g"
    )
    replies.set_message_id(message, "m-1")
    make = replies.error_reply_to(message.metadata)
    message.metadata.dst_node_id = 7  # an app may send the same message on
    reply = make(5, "zurich is gone")
    assert (reply.error.code, reply.error.reason) == (5, "zurich is gone")
    metadata = reply.metadata
    assert (metadata.reply_to_message_id, metadata.message_id) == ("m-1", "m-1.error")
    assert (metadata.src_node_id, metadata.dst_node_id) == (2**64 - 1, 1)
    assert (metadata.message_type, metadata.group_id, metadata.run_id) == ("train.x", "g", fakes.RUN_ID)


def test_a_reply_may_stand_in_for_another() -> None:
    """A late one answers a later message."""
    message = Message(RecordDict(), 5, "train")
    replies.set_message_id(message, "m-1")
    reply = Message(RecordDict(), reply_to=message)
    replies.set_answered(reply, "m-2")
    assert reply.metadata.reply_to_message_id == "m-2"


def test_the_older_apis_parameters() -> None:
    """A request that a NumPyClient understands, and what is in its answer."""
    assert recorddict_compat.recorddict_to_getparametersins(replies.parameters_request()).config == {}
    answer = GetParametersRes(Status(Code.OK, ""), ndarrays_to_parameters([np.ones(2), np.zeros((1, 3))]))
    content = recorddict_compat.getparametersres_to_recorddict(answer, True)
    arrays = replies.parameters_in(content)
    assert [array.numpy().shape for array in arrays.values()] == [(2,), (1, 3)]
