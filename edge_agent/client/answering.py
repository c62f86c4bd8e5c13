"""From a message to its reply on the way: the app is asked once, and its answer is kept before it is sent.

Why it exists: a client may be killed between any two steps of this. Which message is worked on anew and which
reply is delivered as it was is settled here; how work is kept is `keeping`, how replies travel is `link`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import Message

from edge_agent.client import keeping, worker
from federation.flower import messages as flower_messages
from federation.telemetry import logs
from federation.wire import codec, outbox

log = logs.get_logger(__name__)


class Answering:
    """Takes one message after the other, on one thread."""

    def __init__(
        self,
        app: worker.Worker,
        keep: keeping.Keep | None,
        *,
        send: Callable[[codec.OutgoingMessage], None],
        tell: Callable[[Iterable[str]], None],
    ) -> None:
        """Begin by sending what an earlier process answered. keep: opened; None to keep nothing.

        send: takes a reply that is to be offered until the aggregator has it; tell: takes lines of the log.
        """
        self._app, self._keep, self._send, self._tell = app, keep, send, tell
        for reply in keep.replies() if keep is not None else ():
            log.info("kept reply is offered", transfer_id=reply.header.message_id)
            send(reply)

    def take(self, message: Message) -> None:
        """Answer a message; one that an earlier process answered is not put to the app again.

        Raises: OSError where an app's state can neither be kept nor be marked as lost.
        """
        message_id = message.metadata.message_id
        if self._keep is not None:
            if self._keep.was_answered(message_id):
                log.info("message was answered before", message_id=message_id)
                return  # its reply is on the way, or was received meanwhile
            if not self._keep.continues(message_id):
                log.warning("the training began anew, and so does the app's state", message_id=message_id)
                self._app.forget()
        answer = self._app.answer(message)
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
