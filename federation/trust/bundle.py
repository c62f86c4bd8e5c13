"""The trust bundle: the CA certificates that a member believes, and the pin that tells a stranger which one.

A bundle holds one CA, or several while one replaces another. A pin is `sha256:<hex>` of a CA certificate's
public key (its SubjectPublicKeyInfo, DER), as kubeadm's --discovery-token-ca-cert-hash: it outlives a renewal
of the certificate with the same key. This module refuses to know files and networks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from federation.trust import certificates

_PIN = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidPin(ValueError):
    """Not `sha256:` and 64 hexadecimal digits."""


class PinNotFound(Exception):
    """No CA certificate among those shown has the pinned key."""


def check_pin(pin: str) -> str:
    """Return the pin in lower case.

    Raises: InvalidPin.
    """
    lower = pin.strip().lower()
    if not _PIN.fullmatch(lower):
        raise InvalidPin(f"CA hash {pin[:100]!r}: want sha256: and 64 hexadecimal digits")
    return lower


def pin(authority: x509.Certificate) -> str:
    """The pin of a CA certificate.

    Source: RFC 7469 section 2.4 for the hashed bytes; the form is kubeadm's.
    """
    spki = authority.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def find_pinned(candidates: Iterable[x509.Certificate], wanted_pin: str) -> x509.Certificate:
    """Return the CA certificate with the pinned key.

    It must be allowed to sign (CA:TRUE). If it names itself as its issuer, its own signature must hold, so
    that nobody else can have changed its other fields.
    Raises: InvalidPin; PinNotFound.
    """
    wanted = check_pin(wanted_pin)
    seen = []
    for candidate in candidates:
        if not certificates.is_authority(candidate):
            continue
        found = pin(candidate)
        seen.append(found)
        if found == wanted and _signature_holds(candidate):
            return candidate
    raise PinNotFound(
        f"the hub shows no CA certificate with hash {wanted}, only {', '.join(seen) or 'none at all'}; "
        "compare the hash with the hub's operator"
    )


def verify_contains(bundle_pem: bytes, wanted_pin: str) -> None:
    """Make sure that a bundle contains the pinned CA.

    Raises: InvalidPin; PinNotFound; certificates.InvalidCertificate.
    """
    find_pinned(certificates.load(bundle_pem), wanted_pin)


def merge(*bundles_pem: bytes) -> bytes:
    """One bundle with each CA of several, once, in order: for the time while one CA replaces another.

    Raises: certificates.InvalidCertificate.
    """
    merged = {
        certificates.fingerprint(authority): authority
        for bundle_pem in bundles_pem
        for authority in certificates.load(bundle_pem)
    }
    return certificates.to_pem(*merged.values())


def _signature_holds(authority: x509.Certificate) -> bool:
    if authority.subject != authority.issuer:
        return True
    try:
        authority.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
