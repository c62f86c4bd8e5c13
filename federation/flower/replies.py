"""Messages that Hanse itself makes or marks: ids, error replies, the older API's first parameters.

Why it exists: Flower keeps a message's id behind its public surface. Here is the one place that sets it.
What the messages are for is not known here.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord, Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common import GetParametersIns
from flwr.common.constant import ErrorCode, MessageTypeLegacy
from flwr.compat.common import recorddict_compat

GET_PARAMETERS = MessageTypeLegacy.GET_PARAMETERS
"""The message by which Flower's older API asks a client for its parameters."""


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as Flower's own hosts do when it is sent."""
    message.metadata.__dict__["_message_id"] = message_id


def set_answered(reply: Message, message_id: str) -> None:
    """Say which message a reply answers: a late reply may stand in for the answer to a later message."""
    reply.metadata.__dict__["_reply_to_message_id"] = message_id


def error_reply_to(metadata: Metadata) -> Callable[[int, str], Message]:
    """A maker of error replies to a message, which keeps its metadata and not its content."""
    stub = make_message(_copy(metadata), content=RecordDict())

    def make(code: int, reason: str) -> Message:
        reply = Message(Error(code=code, reason=reason), reply_to=stub)
        set_message_id(reply, f"{stub.metadata.message_id}.error")
        return reply

    return make


def _copy(metadata: Metadata) -> Metadata:
    copy = Metadata.__new__(Metadata)
    copy.__dict__.update(metadata.__dict__)
    return copy


def parameters_request() -> RecordDict:
    """The content of a message of type GET_PARAMETERS."""
    return recorddict_compat.getparametersins_to_recorddict(GetParametersIns(config={}))


def parameters_in(content: RecordDict) -> ArrayRecord:
    """The arrays in the reply to such a message."""
    parameters = recorddict_compat.recorddict_to_getparametersres(content, keep_input=True).parameters
    return recorddict_compat.parameters_to_arrayrecord(parameters, keep_input=True)


def refused(reply: Message, reason: str) -> Message:
    """An error reply in the place of a reply that cannot be used."""
    return make_message(
        _copy(reply.metadata), error=Error(code=ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason=reason)
    )
