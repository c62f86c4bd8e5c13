"""A cluster's keys, certificates and tokens: one authority for each cluster, nothing shared between clusters.

Why it exists: an API server wants a dozen credentials before it starts. They live as long as the lab; it is
no model for a real installation.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(days=365)
ADMINISTRATOR = "administrator"


@dataclasses.dataclass(frozen=True)
class Credential:
    """A key and what was signed for it, as PEM."""

    key: bytes
    certificate: bytes


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the API server's file of tokens."""

    name: str
    groups: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pki:
    """All of a cluster's credentials, in one directory."""

    directory: Path

    def file(self, name: str) -> Path:
        return self.directory / name

    def token(self, component: str) -> str:
        return self.file(f"{component}.token").read_text()

    def read(self, name: str) -> str:
        return self.file(name).read_text()


def make(
    directory: Path,
    *,
    users: dict[str, User],
    addresses: Sequence[str],
    names: Sequence[str],
    now: dt.datetime,
) -> Pki:
    """Write a cluster's credentials; `users` maps a component to whom it is to the API server."""
    directory.mkdir(mode=0o700, parents=True)
    pki = Pki(directory)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _sign(
        authority_key, None, authority_key, "hanse-lab", (), now=now, server=False, alternatives=None
    )

    def issue(common_name: str, organisation: tuple[str, ...], *, server: bool) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = None
        if server:
            alternatives = x509.SubjectAlternativeName(
                [
                    *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
                    *(x509.DNSName(name) for name in names),
                ]
            )
        certificate = _sign(
            authority_key,
            authority,
            key,
            common_name,
            organisation,
            now=now,
            server=server,
            alternatives=alternatives,
        )
        return Credential(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))

    _write(pki.file("ca.crt"), authority.public_bytes(serialization.Encoding.PEM))
    # The API server reads a key for tokens in the older form only.
    _write(
        pki.file("service-accounts.key"),
        _pem(ec.generate_private_key(ec.SECP256R1()), serialization.PrivateFormat.TraditionalOpenSSL),
    )
    for name, credential in {
        "apiserver": issue("kube-apiserver", (), server=True),
        "kubelet-client": issue("kube-apiserver-kubelet-client", ("system:masters",), server=False),
        ADMINISTRATOR: issue(ADMINISTRATOR, ("system:masters",), server=False),
    }.items():
        _write(pki.file(f"{name}.key"), credential.key)
        _write(pki.file(f"{name}.crt"), credential.certificate)
    lines = []
    for component, user in users.items():
        token = secrets.token_hex(20)
        _write(pki.file(f"{component}.token"), token.encode())
        lines.append(f'{token},{user.name},{component},"{",".join(user.groups)}"')
    _write(pki.file("tokens.csv"), "\n".join(lines).encode() + b"\n")
    return pki


def inline(text: str) -> str:
    """As a kubeconfig carries it."""
    return base64.b64encode(text.encode()).decode()


def _sign(
    authority_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    organisation: tuple[str, ...],
    *,
    now: dt.datetime,
    server: bool,
    alternatives: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority is None,
                crl_sign=authority is None,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if authority is not None:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _pem(
    key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
