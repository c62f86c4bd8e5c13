"""One reply to each message, whatever the app does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from edge_agent.client import worker
from federation.flower import host, replies
from tests.fakes import exchange as fakes

process = fakes.process


def message(message_id: str = "m-1") -> Message:
    made = Message(RecordDict(), 5, "train")
    replies.set_message_id(made, message_id)
    return made


def make(app: Callable[[Message, Context], Any]) -> worker.Worker:
    return worker.Worker(app, host.make_context(1, 5, {}, {}))  # type: ignore[arg-type]


def raises(error: BaseException) -> Callable[[Message, Context], Message]:
    def app(message: Message, context: Context) -> Message:
        raise error

    return app


def test_a_reply_is_handed_on() -> None:
    """The very object, without a traceback."""
    made: list[Message] = []

    def app(message: Message, context: Context) -> Message:
        made.append(Message(RecordDict(), reply_to=message))
        return made[0]

    answer = make(app).answer(message())
    assert answer.reply is made[0]
    assert answer.traceback_tail == ()


@pytest.mark.parametrize(
    "error, code, reason",
    [
        (ValueError("too small"), 2, "<class 'ValueError'>:<'too small'>"),
        (MemoryError(), 2, "MemoryError"),
        (BaseException("odd"), 2, "BaseException"),
        (SystemExit(3), 8, "the ClientApp called exit(3)"),
        (SystemExit(), 8, "the ClientApp called exit(None)"),
    ],
)
def test_what_an_app_raises_becomes_flowers_error(error: BaseException, code: int, reason: str) -> None:
    """With the code that apps expect, the reason in Flower's form, and the end of the traceback."""
    answer = make(raises(error)).answer(message())
    assert answer.reply.error.code == code
    assert reason in str(answer.reply.error.reason)
    assert answer.reply.metadata.reply_to_message_id == "m-1"
    assert type(error).__name__ in answer.traceback_tail[-1]
    assert len(answer.traceback_tail) <= worker.TRACEBACK_LINES


def test_an_interrupt_is_not_the_apps() -> None:
    """Whoever stops the process stops it."""
    with pytest.raises(KeyboardInterrupt):
        make(raises(KeyboardInterrupt())).answer(message())


@pytest.mark.parametrize("returned", [None, RecordDict(), 7])
def test_what_is_no_message_is_an_error(returned: object) -> None:
    """The reason names what came instead."""
    answer = make(lambda message, context: returned).answer(message())
    assert answer.reply.error.code == 2
    assert f"returned {type(returned).__name__}" in str(answer.reply.error.reason)


def test_the_answer_to_another_message_is_an_error() -> None:
    """It would never be counted, and the message would wait for ever."""
    earlier = Message(RecordDict(), reply_to=message("m-0"))
    answer = make(lambda message, context: earlier).answer(message())
    assert answer.reply.error.code == 2
    assert "'m-0' instead of 'm-1'" in str(answer.reply.error.reason)


def test_state_is_kept_after_an_exception() -> None:
    """What the app put into its context before it failed is there the next time."""

    def app(message: Message, context: Context) -> Message:
        context.state[str(len(context.state))] = ConfigRecord()
        if len(context.state) == 1:
            raise RuntimeError
        return Message(RecordDict({"n": ConfigRecord({"n": len(context.state)})}), reply_to=message)

    working = make(app)
    assert working.answer(message()).reply.has_error()
    assert working.answer(message()).reply.content["n"]["n"] == 2  # type: ignore[index]


def test_an_action_that_the_app_lacks_is_an_error() -> None:
    """As a real ClientApp says it."""
    working = worker.Worker(ClientApp(), host.make_context(1, 5, {}, {}))
    assert working.answer(message()).reply.error.code == 2
