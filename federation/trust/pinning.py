"""Dialling a hub of which one knows nothing but an address and the hash of its CA.

Two steps. First a TLS handshake without any verification, in which nothing is sent: its only result is the
chain that the server shows. In it, the CA certificate with the pinned key is looked for. Then gRPC dials
anew, with that certificate as its only root, and TLS verifies as always. Whoever stands between can show what
he likes in the first step; to pass the second he needs the CA's key.
This module refuses to know tokens and what is said over the channel.

Source: the discovery of `kubeadm join --discovery-token-ca-cert-hash`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import grpc.aio
from cryptography import x509

from federation.trust import bundle, certificates, credentials
from federation.trust import identity as identities
from federation.wire import addresses

DEFAULT_TIMEOUT_SECONDS = 10.0


class HubNotTrusted(Exception):
    """The hub at this address does not show the pinned CA, or cannot be it."""


class HubUnreachable(Exception):
    """Nobody answers at the address, or does not speak TLS 1.3."""


@dataclass(frozen=True, slots=True)
class PinnedHub:
    """A channel to the enrollment listener, and what was learnt on the way; close the channel after use."""

    channel: grpc.aio.Channel
    authority_pem: bytes
    trust_domain: str
    server_name: str


async def dial(
    address: str,
    pin: str,
    *,
    trust_domain: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    options: credentials.Options = (),
) -> PinnedHub:
    """Open a channel to the enrollment listener at `address` (host:port), trusting only the CA with hash
    `pin`.

    `trust_domain` is needed only if the CA's certificate does not say its own (the URI spiffe://TD).
    Raises: bundle.InvalidPin; HubNotTrusted (wrong pin); HubUnreachable.
    """
    wanted = bundle.check_pin(pin)
    chain = await asyncio.to_thread(presented_chain, address, timeout_seconds)
    try:
        authority = bundle.find_pinned(chain, wanted)
    except bundle.PinNotFound as error:
        raise HubNotTrusted(str(error)) from error
    domain = trust_domain or certificates.trust_domain_of(authority)
    if domain is None:
        raise HubNotTrusted(
            f"the CA certificate of {address} names no trust domain; give the trust domain too"
        )
    server_name = identities.CoordinatorIdentity(domain).enrollment_server_name
    authority_pem = certificates.to_pem(authority)
    channel = credentials.channel_to_authority(address, server_name, authority_pem, options)
    return PinnedHub(channel, authority_pem, domain, server_name)


def presented_chain(address: str, timeout_seconds: float) -> list[x509.Certificate]:
    """Return the certificates that a server shows, leaf first, believing none of them. Blocks.

    Raises: HubUnreachable; HubNotTrusted if they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # see the module's docstring: nothing is sent, nothing is believed
    context.set_alpn_protocols(["h2"])
    try:
        host, port = addresses.split(address)
        with (
            socket.create_connection((host, port), timeout_seconds) as connection,
            context.wrap_socket(connection, server_hostname=host) as handshaken,
        ):
            shown = _unverified_chain(handshaken)
    except (OSError, ValueError) as error:
        raise HubUnreachable(
            f"no hub answers at {address}: {error}; check address, port and firewall"
        ) from error
    try:
        return [x509.load_der_x509_certificate(der) for der in shown[: certificates.MAXIMUM_CHAIN_LENGTH]]
    except ValueError as error:
        raise HubNotTrusted(f"the server at {address} shows certificates that cannot be read") from error


def _unverified_chain(handshaken: ssl.SSLSocket) -> list[bytes]:
    """The chain in DER. Public from Python 3.13 on; before, the same function of the object within."""
    public: Any = getattr(handshaken, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    inner: Any = handshaken._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(shown.public_bytes()) for shown in inner.get_unverified_chain() or ()]
