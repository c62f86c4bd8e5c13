"""What the guard decides from a connection's properties, without a connection."""

from __future__ import annotations

from typing import Any

import pytest

from federation.trust import authorisation, interceptors
from federation.trust.identity import ClusterIdentity
from federation.wire.denials import Denied, Reason
from tests.fakes import certificates as fakes

AUTHORITY = fakes.Authority()
ZURICH = ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")


class Context:
    """A servicer context with a connection's properties, as gRPC names them."""

    def __init__(self, **properties: list[bytes]) -> None:
        self._properties = properties

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._properties


def admit(**properties: list[bytes]) -> Any:
    guard = interceptors.Guard(authorisation.control_scope(fakes.TRUST_DOMAIN), now=lambda: AUTHORITY.now)
    return guard._admit("/hanse.v1.Control/Session", Context(**properties))


def test_a_member_over_tls_1_3_is_let_in() -> None:
    """The certificate is read, and its identity handed on."""
    pem = AUTHORITY.client(ZURICH).chain_pem
    assert admit(x509_pem_cert=[pem], ssl_tls_version=[b"TLSv1.3"]).identity == ZURICH


@pytest.mark.parametrize("version", [b"TLSv1.2", b"TLSv1.1", b""])
def test_older_tls_is_denied_even_if_a_handshake_let_it_through(version: bytes) -> None:
    """A process that imported grpc too early still serves nobody over TLS 1.2."""
    with pytest.raises(Denied) as caught:
        admit(x509_pem_cert=[AUTHORITY.client(ZURICH).chain_pem], ssl_tls_version=[version])
    assert caught.value.reason is Reason.TLS_TOO_OLD


@pytest.mark.parametrize(
    "properties",
    [{}, {"x509_pem_cert": []}, {"x509_pem_cert": [AUTHORITY.bundle_pem]}, {"x509_pem_cert": [b"x"]}],
    ids=["none", "empty", "names nobody", "broken"],
)
def test_a_certificate_that_names_nobody_is_denied(properties: dict[str, list[bytes]]) -> None:
    """No identity, no call; a handler that asks gets the same answer."""
    with pytest.raises(Denied) as caught:
        admit(**properties)
    assert caught.value.reason is Reason.UNKNOWN_IDENTITY
    with pytest.raises(Denied) as asked:
        interceptors.peer_identity(Context(**properties))
    assert asked.value.reason is Reason.UNKNOWN_IDENTITY
