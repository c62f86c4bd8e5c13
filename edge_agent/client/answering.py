"""From a message to its reply on the way: the app is asked once, and its answer is kept before it is sent.

Why it exists: a client may be killed between any two steps of this. Which message is worked on anew and which
reply is delivered as it was is settled here; how work is kept is `keeping`, how replies travel is `link`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from flwr.app import Message

from edge_agent.client import keeping, worker
from federation.flower import messages as flower_messages
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import codec, outbox

log = logs.get_logger(__name__)

REMEMBERED_WITHDRAWN = 1000
"""Of messages that nobody waits for; one that never came is forgotten at last."""


class Withdrawn:
    """The messages whose replies nobody waits for any more. One thread adds, another looks."""

    def __init__(self) -> None:
        """None yet."""
        self._ids: dict[str, None] = {}

    def add(self, message_id: str) -> None:
        """The message may be left out if it has not been begun."""
        self._ids[message_id] = None
        if len(self._ids) > REMEMBERED_WITHDRAWN:
            del self._ids[next(iter(self._ids))]

    def __len__(self) -> int:
        """How many of them are remembered."""
        return len(self._ids)

    def __contains__(self, message_id: object) -> bool:
        """Whether nobody waits."""
        return message_id in self._ids


class Answering:
    """Takes one message after the other, on one thread."""

    def __init__(
        self,
        app: worker.Worker,
        keep: keeping.Keep | None,
        *,
        send: Callable[[codec.OutgoingMessage], None],
        tell: Callable[[Iterable[str]], None],
        withdrawn: Container[str] = (),
    ) -> None:
        """Begin by sending what an earlier process answered. keep: opened; None to keep nothing.

        send: takes a reply that is to be offered until the aggregator has it; tell: takes lines of the log.
        withdrawn: the messages that are not to be begun.
        """
        self._app, self._keep, self._send, self._tell = app, keep, send, tell
        self._withdrawn = withdrawn
        for reply in keep.replies() if keep is not None else ():
            log.info("kept reply is offered", transfer_id=reply.header.message_id)
            send(reply)

    def take(self, message: Message) -> None:
        """Answer a message; one that an earlier process answered is not put to the app again.

        Raises: OSError where an app's state can neither be kept nor be marked as lost.
        """
        message_id = message.metadata.message_id
        if message_id in self._withdrawn:
            log.info("message left out, nobody waits for its reply", message_id=message_id)
            return
        if self._keep is not None:
            if self._keep.was_answered(message_id):
                log.info("message was answered before", message_id=message_id)
                return  # its reply is on the way, or was received meanwhile
            if not self._keep.continues(message_id):
                log.warning("the training began anew, and so does the app's state", message_id=message_id)
                self._app.forget()
        log.debug("app is asked", message_id=message_id)
        failpoints.reach("client.message-taken")
        answer = self._app.answer(message)
        failpoints.reach("client.app-answered")
        if answer.traceback_tail:
            self._tell(answer.traceback_tail)
        reply_id = outbox.reply_id(message_id)
        try:
            reply = flower_messages.to_wire(answer.reply, reply_id)
        except flower_messages.MessageNotRepresentable as error:
            log.error("reply cannot be sent", detail=str(error))
            reply = flower_messages.to_wire(self._app.unsendable(message, error), reply_id)
        if self._keep is None:
            self._send(reply)
        else:
            self._keep.answered(message_id, self._app.state, reply, lambda: self._send(reply))
