"""Reading certificates: whose, until when, which.

Reading is not verifying. TLS verifies a chain at the handshake; what is read here is meaningful only for a
certificate that passed it, or that came from one's own authority.
This module refuses to know files, networks and what an identity may do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.trust import identity as identities

# A chain has a leaf and at most a few authorities. A longer one is not worth reading.
MAXIMUM_CHAIN_LENGTH = 8


class InvalidCertificate(ValueError):
    """Not a certificate, or not one of a federation."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a leaf certificate says. Times are aware and in UTC; `fingerprint` is sha256:<hex of the DER>."""

    identity: identities.Identity
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: str
    dns_names: tuple[str, ...]


def load(pem: bytes) -> list[x509.Certificate]:
    """Read all certificates of a PEM text, in order.

    Raises: InvalidCertificate if there is none, one is broken, or there are more than MAXIMUM_CHAIN_LENGTH.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidCertificate("not certificates in PEM") from error
    if not 1 <= len(found) <= MAXIMUM_CHAIN_LENGTH:
        raise InvalidCertificate(f"want 1 to {MAXIMUM_CHAIN_LENGTH} certificates, got {len(found)}")
    return found


def to_pem(*certificates: x509.Certificate) -> bytes:
    """Write certificates one after the other, leaf first in a chain."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def summarise(pem: bytes) -> Summary:
    """Read the first certificate of a PEM text.

    Raises: InvalidCertificate if it is none, or names not exactly one identity.
    """
    leaf = load(pem)[0]
    return Summary(
        identity=identity_of(leaf),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        fingerprint=fingerprint(leaf),
        dns_names=tuple(_alternative_names(leaf).get_values_for_type(x509.DNSName)),
    )


def identity_of(certificate: x509.Certificate) -> identities.Identity:
    """Read the SPIFFE ID: an X.509-SVID has exactly one URI among its alternative names.

    Raises: InvalidCertificate.
    """
    uris = _alternative_names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidCertificate(f"want exactly one URI among the alternative names, got {len(uris)}")
    try:
        return identities.parse(uris[0])
    except identities.InvalidIdentity as error:
        raise InvalidCertificate(str(error)) from error


def trust_domain_of(authority: x509.Certificate) -> str | None:
    """Read the trust domain that a CA certificate is for (its URI spiffe://TD), if it says."""
    try:
        uris = _alternative_names(authority).get_values_for_type(x509.UniformResourceIdentifier)
        return identities.check_trust_domain(uris[0].removeprefix("spiffe://")) if len(uris) == 1 else None
    except (InvalidCertificate, identities.InvalidIdentity):
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Say whether the certificate may sign others (CA:TRUE)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def fingerprint(certificate: x509.Certificate) -> str:
    """sha256:<hex of the certificate's DER>."""
    return "sha256:" + hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def belongs_to(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    """Say whether `key` is the private half of the certificate's key."""
    public = certificate.public_key()
    return (
        isinstance(public, ec.EllipticCurvePublicKey)
        and public.public_numbers() == key.public_key().public_numbers()
    )


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise InvalidCertificate("the certificate has no alternative names that can be read") from error
