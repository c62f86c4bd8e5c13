"""Answering one message at a time with the user's ClientApp.

Why it exists: a Flower ClientApp is a plain callable of a message and a context. This module calls it the
way Flower does (one message after the other, the same context for the whole training) and turns whatever the
app does, raising and exiting included, into exactly one reply. It knows nothing of channels.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from federation.flower import host
from federation.telemetry import logs

log = logs.get_logger(__name__)

TRACEBACK_LINES = 12
"""Enough to see the raising frame and its caller; a reply's reason has to fit into a status message."""


@dataclass(frozen=True)
class Answer:
    """A reply, and for a failed one the last lines of its traceback (empty otherwise)."""

    reply: Message
    traceback_tail: tuple[str, ...] = ()


class Worker:
    """Calls one ClientApp for the life of one training."""

    def __init__(self, app: ClientApp, context: Context) -> None:
        self._app = app
        self._context = context

    @property
    def state(self) -> RecordDict:
        """What the app keeps from one message to the next."""
        return self._context.state

    def forget(self) -> None:
        """Let the app begin with an empty state."""
        self._context.state = RecordDict()

    def answer(self, message: Message) -> Answer:
        """Return the app's reply to a message, or an error reply if it has none.

        Errors: an exception of the app becomes Flower's code 2 with its type and text, as in Flower itself;
        an app that calls `exit` or returns something that is no reply to this message becomes code 8 or 2.
        Nothing is raised but a KeyboardInterrupt.
        State:  what the app put into `context.state` is kept, also after an exception.
        """
        try:
            reply: object = self._app(message, self._context)
        except SystemExit as exit_call:
            return self._failed(
                message, host.ERROR_APP_CRASHED, f"the ClientApp called exit({exit_call.code})"
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a user's app may raise anything; all of it is one reply
            # The form of the reason is Flower's own: apps and strategies read it.
            return self._failed(message, host.ERROR_APP_RAISED, f"{type(error)}:<'{error}'>")
        if not isinstance(reply, Message):
            asked = message.metadata.message_type
            reason = f"the ClientApp returned {type(reply).__name__} to a {asked} message, not a Message"
            return Answer(_error(message, host.ERROR_APP_RAISED, reason))
        answered = reply.metadata.reply_to_message_id
        if answered != message.metadata.message_id:
            reason = f"the ClientApp answered message {answered!r} instead of {message.metadata.message_id!r}"
            return Answer(_error(message, host.ERROR_APP_RAISED, reason))
        return Answer(reply)

    @staticmethod
    def unsendable(message: Message, error: Exception) -> Message:
        """The reply in place of one that cannot be sent."""
        return _error(message, host.ERROR_APP_RAISED, f"{type(error)}:<'{error}'>")

    def _failed(self, message: Message, code: int, reason: str) -> Answer:
        lines = traceback.format_exc().rstrip().splitlines()
        log.error(
            "client app failed", message_type=message.metadata.message_type, reason=reason, exc_info=True
        )
        return Answer(_error(message, code, reason), tuple(lines[-TRACEBACK_LINES:]))


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
