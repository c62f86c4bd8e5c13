"""A certificate authority for tests that really signs, with the authority's own code.

authority = Authority()
hub = authority.server(CoordinatorIdentity("hanse.local")).directory(tmp_path / "hub")
edge = authority.client(ClusterIdentity("hanse.local", "zurich")).directory(tmp_path / "zurich")
server.add_secure_port("127.0.0.1:0", hub.server_credentials())
channel = edge.channel(address, "coordinator.hanse.local")
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coordinator.issuing import certificate_authority
from federation.trust import bundle, credentials, keys
from federation.trust import certificates as reading
from federation.trust import identity as identities

TRUST_DOMAIN = "hanse.local"


@dataclass(frozen=True)
class Issued:
    """A key, its chain and the trust bundle, in PEM."""

    key_pem: bytes
    chain_pem: bytes
    bundle_pem: bytes

    @property
    def serial(self) -> int:
        return reading.summarise(self.chain_pem).serial

    def directory(self, path: Path) -> credentials.CredentialDirectory:
        """Write a credential directory."""
        made = credentials.CredentialDirectory(path)
        made.write(self.key_pem, self.chain_pem, self.bundle_pem)
        return made


class Authority:
    """A CA made for one test. Certificates live for an hour from now unless told otherwise."""

    def __init__(
        self, trust_domain: str = TRUST_DOMAIN, now: datetime | None = None, *, constrain_names: bool = False
    ) -> None:
        self.now = now or datetime.now(UTC)
        self._serials = itertools.count(1)
        self.ca = certificate_authority.create(
            trust_domain,
            keys.generate(),
            now=self.now - timedelta(days=3),
            lifetime=timedelta(days=365),
            serial=next(self._serials),
            constrain_names=constrain_names,
        )

    @property
    def bundle_pem(self) -> bytes:
        return self.ca.certificate_pem

    @property
    def pin(self) -> str:
        return bundle.pin(self.ca.certificate)

    def server(
        self,
        identity: identities.CoordinatorIdentity | identities.AggregatorIdentity,
        dns: Sequence[str] = (),
    ) -> Issued:
        """A certificate for serving; the identity's own server name is in it."""
        return self.issue(identity, dns=dns)

    def client(self, identity: identities.Identity) -> Issued:
        """A certificate for calling."""
        return self.issue(identity)

    def expired(self, identity: identities.Identity) -> Issued:
        """A certificate that was good until an hour ago."""
        return self.issue(identity, issued_at=self.now - timedelta(hours=2), lifetime=timedelta(hours=1))

    def issue(
        self,
        identity: identities.Identity,
        *,
        dns: Sequence[str] = (),
        issued_at: datetime | None = None,
        lifetime: timedelta = timedelta(hours=1),
    ) -> Issued:
        key = keys.generate()
        leaf = certificate_authority.issue(
            self.ca,
            keys.request(key, identity),
            identity,
            now=issued_at or self.now,
            lifetime=lifetime,
            serial=next(self._serials),
            dns_names=dns,
        )
        assert isinstance(leaf, bytes), leaf
        return Issued(keys.to_pem(key), leaf, self.bundle_pem)
