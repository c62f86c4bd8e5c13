"""Certificates for the peers that are measured beside Hanse: one authority, and directories of credentials.

Hanse's own processes enrol as ever and need nothing from here.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator.issuing import certificate_authority
from federation.trust import certificates, credentials, keys
from federation.trust import identity as identities

TRUST_DOMAIN = "bench.local"
_LIFETIME = dt.timedelta(days=1)


class Authority:
    """A certificate authority that lives for one benchmark."""

    def __init__(self) -> None:
        """Make its key."""
        self._authority = certificate_authority.create(
            TRUST_DOMAIN,
            keys.generate(),
            now=dt.datetime.now(dt.UTC),
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

    def loopback_files(self, directory: Path) -> None:
        """Write ca.crt, tls.crt and tls.key for a server on localhost, as stock Flower wants them."""
        key, now = keys.generate(), dt.datetime.now(dt.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]))
            .issuer_name(self._authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(_serial())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + _LIFETIME / 2)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority.key.public_key()),
                critical=False,
            )
            .sign(self._authority.key, hashes.SHA256())
        )
        directory.joinpath("ca.crt").write_bytes(self.certificate_pem)
        directory.joinpath("tls.crt").write_bytes(certificates.to_pem(certificate))
        file = directory / "tls.key"
        file.touch(mode=0o600)
        file.write_bytes(keys.to_pem(key))

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
            now=dt.datetime.now(dt.UTC),
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
