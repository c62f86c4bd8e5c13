"""The catalogue of denials."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import denials
from federation.wire.denials import CATALOGUE, Denial, Denied, Reason


class RpcError:
    """A failed call, as both kinds of gRPC error show it."""

    def __init__(self, metadata: object, details: str | None) -> None:
        self._metadata, self._details = metadata, details

    def trailing_metadata(self) -> object:
        return self._metadata

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_line(reason: Reason) -> None:
    """A known status, and one plain sentence: lower case, no full stop, all fields filled."""
    entry = CATALOGUE[reason]
    assert entry.status in grpc.StatusCode.__members__
    assert entry.status != "OK"
    denied = Denied(reason, **{name: f"<{name}>" for name in entry.fields})
    assert denied.reason is reason
    assert not denied.denial.message.endswith(".")
    assert denied.denial.message[0] in "abcdefghijklmnopqrstuvwxyz<"
    for name in entry.fields:
        assert f"<{name}>" in str(denied)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_denial_survives_the_wire(reason: Reason) -> None:
    """What the server sends is what the client reads."""
    sent = denials.denial(reason, **{name: "x" for name in CATALOGUE[reason].fields})
    assert denials.from_rpc_error(RpcError(denials.trailing_metadata(sent), sent.message)) == sent


def test_a_missing_field_is_an_error_of_the_program() -> None:
    """No sentence with a hole in it is sent."""
    with pytest.raises(KeyError):
        denials.denial(Reason.TOO_LARGE, what="an update")


def test_other_failures_are_no_denials() -> None:
    """A lost connection has no reason, and a reason from a newer version is not guessed at."""
    assert denials.from_rpc_error(RpcError(None, None)) is None
    assert denials.from_rpc_error(RpcError((("other", "x"),), "")) is None
    assert denials.from_rpc_error(RpcError(((denials.METADATA_KEY, "Invented"),), "")) is None
    assert denials.from_rpc_error(RpcError(((denials.METADATA_KEY, b"\xff"),), "")) is None


@given(st.text(max_size=3000))
def test_a_foreign_sentence_is_one_bounded_printable_line(details: str) -> None:
    """It ends in logs and terminals."""
    read = denials.from_rpc_error(RpcError(((denials.METADATA_KEY, "Busy"),), details))
    assert read is not None
    assert read.message.isprintable()
    assert len(read.message) <= denials.MAXIMUM_MESSAGE_CHARACTERS


def test_whether_to_try_again_is_part_of_the_catalogue() -> None:
    """Waiting helps against a busy hub, not against a used token."""
    assert Denial(Reason.BUSY, "").may_retry
    assert Denial(Reason.AWAITING_APPROVAL, "").may_retry
    assert not Denial(Reason.TOKEN_USED, "").may_retry
    assert not Denial(Reason.EXPELLED, "").may_retry
