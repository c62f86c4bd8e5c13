"""The table of who may call what."""

from __future__ import annotations

import pytest

from federation.trust import authorisation
from federation.trust.authorisation import Listener, Revocations, Scope
from federation.trust.identity import (
    KINDS,
    AggregatorIdentity,
    ClientIdentity,
    ClusterIdentity,
    CoordinatorIdentity,
    Identity,
)
from federation.wire import hanse_pb2
from federation.wire.denials import Denial, Reason

TD = "hanse.local"
HUB = CoordinatorIdentity(TD)
ZURICH = ClusterIdentity(TD, "zurich")
AGGREGATOR = AggregatorIdentity(TD, "cardiology", "hospitals")
CLIENT = ClientIdentity(TD, "zurich", "cardiology", "hospitals", "heart")
CONTROL = authorisation.control_scope(TD)
EXCHANGE = authorisation.exchange_scope(TD, "cardiology", "hospitals")
SESSION = "/hanse.v1.Control/Session"
EXCHANGE_SESSION = "/hanse.v1.Exchange/Session"


def reason(denied: Denial | None) -> Reason | None:
    return denied.reason if denied else None


def test_every_rpc_of_the_protocol_has_a_line_and_no_line_is_left_over() -> None:
    """A new RPC cannot be served before somebody decided who may call it."""
    rpcs = {
        f"/{service.full_name}/{method.name}"
        for service in hanse_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert authorisation.TABLE.keys() == rpcs


def test_join_alone_needs_no_certificate() -> None:
    """Every other line names at least one kind of identity, and only kinds that exist."""
    anonymous = [method for method, rule in authorisation.TABLE.items() if rule.anonymous]
    assert anonymous == ["/hanse.v1.Enrollment/Join"]
    for method, rule in authorisation.TABLE.items():
        assert rule.kinds <= set(KINDS)
        assert bool(rule.kinds) != rule.anonymous, method


@pytest.mark.parametrize(
    "method, identity, scope, want",
    [
        (SESSION, ZURICH, CONTROL, None),
        (SESSION, None, CONTROL, Reason.UNKNOWN_IDENTITY),
        (SESSION, CLIENT, CONTROL, Reason.NOT_AUTHORISED),
        (SESSION, HUB, CONTROL, Reason.NOT_AUTHORISED),
        (SESSION, ClusterIdentity("other.local", "zurich"), CONTROL, Reason.UNKNOWN_IDENTITY),
        (SESSION, ZURICH, EXCHANGE, Reason.WRONG_LISTENER),
        (SESSION, None, authorisation.enrollment_scope(TD), Reason.WRONG_LISTENER),
        ("/hanse.v1.Enrollment/Join", ZURICH, CONTROL, Reason.WRONG_LISTENER),
        ("/hanse.v1.Enrollment/Join", None, authorisation.enrollment_scope(TD), None),
        ("/hanse.v1.Control/Invented", ZURICH, CONTROL, Reason.NOT_AUTHORISED),
        ("", None, CONTROL, Reason.NOT_AUTHORISED),
        (EXCHANGE_SESSION, CLIENT, EXCHANGE, None),
        (EXCHANGE_SESSION, ZURICH, EXCHANGE, Reason.NOT_AUTHORISED),
        (
            EXCHANGE_SESSION,
            ClientIdentity(TD, "zurich", "cardiology", "stroke", "heart"),
            EXCHANGE,
            Reason.WRONG_TRAINING,
        ),
        (
            EXCHANGE_SESSION,
            ClientIdentity(TD, "zurich", "oncology", "hospitals", "heart"),
            EXCHANGE,
            Reason.WRONG_TRAINING,
        ),
    ],
)
def test_the_first_reason_is_given(
    method: str, identity: Identity | None, scope: Scope, want: Reason | None
) -> None:
    """Door, identity, trust domain, kind, training: in this order."""
    assert reason(authorisation.authorise(method, identity, Revocations(), scope)) is want


@pytest.mark.parametrize(
    "identity, serial, revocations, want",
    [
        (ZURICH, 7, Revocations(clusters=frozenset({"zurich"})), Reason.EXPELLED),
        (CLIENT, 7, Revocations(clusters=frozenset({"zurich"})), Reason.EXPELLED),
        (AGGREGATOR, 7, Revocations(clusters=frozenset({"zurich"})), None),
        (ZURICH, 7, Revocations(left=frozenset({"zurich"})), Reason.REVOKED),
        (CLIENT, 7, Revocations(left=frozenset({"zurich"})), Reason.REVOKED),
        (CLIENT, 7, Revocations(left=frozenset({"budapest"})), None),
        (CLIENT, 7, Revocations(trainings=frozenset({("cardiology", "hospitals")})), Reason.REVOKED),
        (AGGREGATOR, 7, Revocations(trainings=frozenset({("cardiology", "hospitals")})), Reason.REVOKED),
        (CLIENT, 7, Revocations(trainings=frozenset({("oncology", "hospitals")})), None),
        (ZURICH, 7, Revocations(trainings=frozenset({("cardiology", "hospitals")})), None),
        (ZURICH, 7, Revocations(serials=frozenset({7})), Reason.REVOKED),
        (ZURICH, 8, Revocations(serials=frozenset({7})), None),
        (ZURICH, None, Revocations(serials=frozenset({7})), None),
    ],
)
def test_a_revocation_covers_whom_it_names(
    identity: Identity, serial: int | None, revocations: Revocations, want: Reason | None
) -> None:
    """A cluster with all its clients, a training with all its members, or one certificate."""
    assert reason(revocations.find(identity, serial)) is want
    assert reason((Revocations() | revocations).find(identity, serial)) is want


def test_a_scope_names_a_training_exactly_if_it_is_an_aggregators() -> None:
    """An aggregator without a training would serve everybody's clients."""
    with pytest.raises(ValueError, match="names a training"):
        Scope(Listener.EXCHANGE, TD)
    with pytest.raises(ValueError, match="names a training"):
        Scope(Listener.CONTROL, TD, "cardiology", "hospitals")
