"""The federation's CA, and what is issued from it.

It keeps the one key that everything hangs on, readable by this user only. This module refuses to know who
should get a certificate: enrollment and the controller decide that.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from datetime import datetime, timedelta

from coordinator.issuing import certificate_authority
from federation.trust import bundle, certificates, directory, keys
from federation.trust import identity as identities
from federation.wire import denials

CA_LIFETIME = timedelta(days=3650)


@dataclasses.dataclass(frozen=True)
class Lifetimes:
    """How long certificates are good."""

    coordinator: timedelta = timedelta(days=30)
    cluster: timedelta = timedelta(days=7)
    aggregator: timedelta = timedelta(days=1)
    client: timedelta = timedelta(days=1)


class Authority:
    """Issues certificates of one trust domain."""

    def __init__(
        self,
        ca: certificate_authority.CertificateAuthority,
        *,
        now: Callable[[], datetime],
        new_serial: Callable[[], int],
        lifetimes: Lifetimes,
    ) -> None:
        """Issue with this CA."""
        self._authority = ca
        self._now = now
        self._new_serial = new_serial
        self._lifetimes = lifetimes

    @property
    def trust_domain(self) -> str:
        """The trust domain that it vouches for."""
        return self._authority.trust_domain

    @property
    def bundle_pem(self) -> bytes:
        """The trust bundle."""
        return self._authority.certificate_pem

    @property
    def pin(self) -> str:
        """What a joining edge compares: sha256:HEX of the CA's public key."""
        return bundle.pin(self._authority.certificate)

    def issue(self, csr_pem: bytes, identity: identities.Identity) -> bytes:
        """Sign a certificate (PEM chain) for an identity. Raises: denials.Denied for a bad request."""
        issued = certificate_authority.issue(
            self._authority,
            csr_pem,
            identity,
            now=self._now(),
            lifetime=getattr(self._lifetimes, identity.kind),
            serial=self._new_serial(),
        )
        if isinstance(issued, denials.Denial):
            raise denials.Denied(issued)
        return issued

    def equip(self, path: pathlib.Path, identity: identities.Identity) -> None:
        """Write a key and a certificate of our own, or of a process that we start, into a credential
        directory.
        """
        directory.write(path, self.material(identity))

    def material(self, identity: identities.Identity) -> directory.Material:
        """Make a key and a certificate of our own, or of a process that we start."""
        key = keys.generate()
        chain = self.issue(keys.request(key, identity), identity)
        return directory.Material(keys.to_pem(key), chain, self.bundle_pem)


def load_or_create(
    path: pathlib.Path, trust_domain: str, *, now: datetime, new_serial: Callable[[], int]
) -> certificate_authority.CertificateAuthority:
    """Load the CA that lies in `path`, or make one there.

    Raises: certificate_authority.AuthorityUnusable if what lies there is no CA of this trust domain;
    directory.CredentialsUnusable, OSError.
    """
    try:
        material = directory.read(path)
    except directory.CredentialsUnusable:
        if (path / directory.KEY_NAME).exists():
            raise
    else:
        certificate = certificates.load(material.chain_pem)[0]
        return certificate_authority.load(certificate, keys.from_pem(material.key_pem), trust_domain)
    made = create(trust_domain, now=now, new_serial=new_serial)
    key_pem = keys.to_pem(made.key)
    directory.write(path, directory.Material(key_pem, made.certificate_pem, made.certificate_pem))
    return made


def create(
    trust_domain: str, *, now: datetime, new_serial: Callable[[], int]
) -> certificate_authority.CertificateAuthority:
    """Make a new CA with a new key."""
    return certificate_authority.create(
        trust_domain, keys.generate(), now=now, lifetime=CA_LIFETIME, serial=new_serial()
    )
