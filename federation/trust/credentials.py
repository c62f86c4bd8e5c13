"""From a credential directory to gRPC: servers and channels over mutual TLS that follow the files as they
change.

A server asks for the files at every handshake (gRPC's dynamic server credentials), so a renewed certificate
or a new trust bundle is in force for the next connection, and open connections are left alone. A channel
keeps what it was made with; `ReloadingChannel` makes another one when the files have changed and keeps the
old one until its last user is done. This module refuses to know who may call what, and when to renew.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from federation.trust import certificates, directory, tls
from federation.trust import identity as identities

_log = structlog.get_logger(__name__)

Options = Sequence[tuple[str, Any]]

FIRST_DIAL_PAUSE_MS, LONGEST_DIAL_PAUSE_MS = 200, 8_000
"""Between two tries of gRPC to connect, give or take a fifth; one that hangs takes 20 s."""


class CredentialDirectory:
    """The credentials of one member, in files. See `directory` for the layout and who may write when."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"CredentialDirectory({str(self.path)!r})"

    def exists(self) -> bool:
        """Say whether there are usable credentials, expired or not."""
        try:
            directory.read(self.path)
        except directory.CredentialsUnusable:
            return False
        return True

    def write(self, key_pem: bytes, chain_pem: bytes, bundle_pem: bytes) -> None:
        """Put new credentials in force, all at once: 0600 files in a 0700 directory.

        Raises: directory.CredentialsUnusable if key and certificate do not belong together; OSError.
        """
        directory.write(self.path, directory.Material(key_pem, chain_pem, bundle_pem))

    def read(self) -> directory.Material:
        """The credentials in force, from one version.

        Raises: directory.CredentialsUnusable.
        """
        return directory.read(self.path)

    def summary(self) -> certificates.Summary:
        """What the certificate in force says.

        Raises: directory.CredentialsUnusable; certificates.InvalidCertificate.
        """
        return certificates.summarise(self.read().chain_pem)

    def identity(self) -> identities.Identity:
        """Whose credentials these are. Raises as `summary`."""
        return self.summary().identity

    def expires_at(self) -> datetime:
        """When the certificate in force ends, in UTC. Raises as `summary`."""
        return self.summary().not_after

    def stamp(self) -> tuple[object, ...]:
        """Something that changes whenever the credentials in force do."""
        return directory.stamp(self.path)

    def server_credentials(self, *, require_clients: bool = True) -> grpc.ServerCredentials:
        """Credentials of a server, which follow the files.

        With `require_clients`, a client without a certificate from the trust bundle gets no connection.
        Without, no client certificate is asked for, and the CA certificate is shown too, so that a joining
        edge can compare it with its pin.
        Raises: directory.CredentialsUnusable if there are none yet.
        """
        _warn_unless_tls13()
        source = _ServerConfigurations(self, require_clients)
        return grpc.dynamic_ssl_server_credentials(
            source.first(), source.if_changed, require_client_authentication=require_clients
        )

    def channel(self, address: str, server_name: str, options: Options = ()) -> grpc.aio.Channel:
        """Open a channel with the credentials in force now, to a server whose certificate has `server_name`.

        `address` is host:port. The channel has connections of its own, shared with no other channel.
        Raises: directory.CredentialsUnusable.
        """
        material = self.read()
        return _dial(
            address,
            server_name,
            grpc.ssl_channel_credentials(material.bundle_pem, material.key_pem, material.chain_pem),
            options,
        )

    def reloading_channel(self, address: str, server_name: str, options: Options = ()) -> ReloadingChannel:
        """A channel that is made anew when the files have changed. See `ReloadingChannel`."""
        return ReloadingChannel(self, address, server_name, options)


class ReloadingChannel:
    """Channels to one server, with the credentials that are in force when a use begins.

        async with reloading.use() as channel:      # here the files are looked at
            ...one call, or one long stream...      # here they are not

    A use that began before a renewal goes on with the old certificate, undisturbed, to its end.
    """

    def __init__(
        self, credentials: CredentialDirectory, address: str, server_name: str, options: Options = ()
    ) -> None:
        self._credentials = credentials
        self._address = address
        self._server_name = server_name
        self._options = tuple(options)
        self._current: _Counted | None = None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[grpc.aio.Channel]:
        """Lend a channel with the credentials in force.

        Raises: directory.CredentialsUnusable.
        """
        counted, replaced = self._newest()
        counted.users += 1
        try:
            if replaced is not None and replaced.users == 0:
                await replaced.channel.close()
            yield counted.channel
        finally:
            counted.users -= 1
            if counted.users == 0 and counted is not self._current:
                await counted.channel.close()

    async def close(self) -> None:
        """Close the channel in force, if nobody uses it; otherwise its last user does."""
        current, self._current = self._current, None
        if current is not None and current.users == 0:
            await current.channel.close()

    def _newest(self) -> tuple[_Counted, _Counted | None]:
        """The channel with the credentials in force, and the one that it takes the place of just now."""
        stamp = self._credentials.stamp()
        current = self._current
        if current is not None and current.stamp == stamp:
            return current, None
        channel = self._credentials.channel(self._address, self._server_name, self._options)
        self._current = _Counted(channel, stamp)
        return self._current, current


@dataclass(eq=False, slots=True)
class _Counted:
    channel: grpc.aio.Channel
    stamp: tuple[object, ...]
    users: int = 0


class _ServerConfigurations:
    """What gRPC asks at every handshake, from a thread of its own; quick while nothing changes."""

    def __init__(self, credentials: CredentialDirectory, require_clients: bool) -> None:
        self._credentials = credentials
        self._require_clients = require_clients
        self._stamp: tuple[object, ...] = ()

    def first(self) -> grpc.ServerCertificateConfiguration:
        self._stamp = self._credentials.stamp()
        return self._load()

    def if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None keeps what is in force, which is also the answer while the files cannot be used."""
        stamp = self._credentials.stamp()
        if stamp == self._stamp:
            return None
        try:
            configuration = self._load()
        except Exception as error:  # whatever escaped here would end in gRPC's core
            _log.warning("credentials_not_reloaded", path=str(self._credentials.path), error=str(error))
            return None
        self._stamp = stamp
        return configuration

    def _load(self) -> grpc.ServerCertificateConfiguration:
        material = self._credentials.read()
        if self._require_clients:
            chain, roots = material.chain_pem, material.bundle_pem
        else:
            chain, roots = _with_issuer(material), None
        return grpc.ssl_server_certificate_configuration([(material.key_pem, chain)], roots)


def _with_issuer(material: directory.Material) -> bytes:
    """The chain up to and with the CA certificate that signed its last link, out of the trust bundle."""
    chain = certificates.load(material.chain_pem)
    for authority in certificates.load(material.bundle_pem):
        if authority in chain:
            break
        if _issued_by(chain[-1], authority):
            chain.append(authority)
            break
    return certificates.to_pem(*chain)


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _dial(
    address: str, server_name: str, channel_credentials: grpc.ChannelCredentials, options: Options
) -> grpc.aio.Channel:
    _warn_unless_tls13()
    own = (
        ("grpc.ssl_target_name_override", server_name),
        # A channel made after a renewal must not get a connection that was made before it.
        ("grpc.use_local_subchannel_pool", 1),
        # By itself gRPC waits up to two minutes: longer than some wait for the other end of a link.
        ("grpc.initial_reconnect_backoff_ms", FIRST_DIAL_PAUSE_MS),
        ("grpc.max_reconnect_backoff_ms", LONGEST_DIAL_PAUSE_MS),
    )
    return grpc.aio.secure_channel(address, channel_credentials, options=(*own, *options))


def _warn_unless_tls13() -> None:
    if not tls.EXCLUDED:
        _log.warning("tls_1_2_not_excluded", detail="grpc was imported before federation.trust")


def channel_to_authority(
    address: str, server_name: str, authority_pem: bytes, options: Options = ()
) -> grpc.aio.Channel:
    """Open a channel without a client certificate, to a server that exactly this CA vouches for."""
    return _dial(address, server_name, grpc.ssl_channel_credentials(authority_pem), options)
