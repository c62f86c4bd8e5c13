"""Certificates for the peers that are measured beside Hanse: one authority, and directories of credentials.

Hanse's own processes enrol as ever and need nothing from here.
"""

from __future__ import annotations

import datetime
import secrets
from pathlib import Path

from coordinator.issuing import certificate_authority
from federation.trust import credentials, keys
from federation.trust import identity as identities

TRUST_DOMAIN = "bench.local"
_LIFETIME = datetime.timedelta(days=1)


class Authority:
    """A certificate authority that lives for one benchmark."""

    def __init__(self) -> None:
        """Make its key."""
        self._authority = certificate_authority.create(
            TRUST_DOMAIN,
            keys.generate(),
            now=datetime.datetime.now(datetime.UTC),
            lifetime=_LIFETIME,
            serial=_serial(),
        )

    @property
    def certificate_pem(self) -> bytes:
        """What its peers trust."""
        return self._authority.certificate_pem

    def server(self, directory: Path, *dns_names: str) -> credentials.CredentialDirectory:
        """Write credentials for a server under `dns_names`."""
        return self._write(directory, identities.CoordinatorIdentity(TRUST_DOMAIN), dns_names)

    def client(self, directory: Path, cluster: str) -> credentials.CredentialDirectory:
        """Write credentials for a client."""
        return self._write(directory, identities.ClusterIdentity(TRUST_DOMAIN, cluster), ())

    def _write(
        self, directory: Path, identity: identities.Identity, dns_names: tuple[str, ...]
    ) -> credentials.CredentialDirectory:
        key = keys.generate()
        chain = certificate_authority.issue(
            self._authority,
            keys.request(key, identity),
            identity,
            now=datetime.datetime.now(datetime.UTC),
            lifetime=_LIFETIME,
            serial=_serial(),
            dns_names=dns_names,
        )
        assert isinstance(chain, bytes)  # a request made here is not denied
        written = credentials.CredentialDirectory(directory)
        written.write(keys.to_pem(key), chain, self.certificate_pem)
        return written


def _serial() -> int:
    return secrets.randbits(128) + 1
