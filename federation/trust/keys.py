"""Private keys and certificate requests. ECDSA P-256 everywhere; a key never leaves the machine that made it.

This module refuses to know files and networks.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation.trust import identity as identities


class InvalidKey(ValueError):
    """Not a private key on P-256."""


def generate() -> ec.EllipticCurvePrivateKey:
    """Make a new ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write the key as unencrypted PKCS #8, for a file that only its owner reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def from_pem(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises: InvalidKey if it is none, encrypted, or not on P-256.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidKey("not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidKey("the private key is not an ECDSA P-256 key")
    return key


def request(key: ec.EllipticCurvePrivateKey, identity: identities.Identity | None = None) -> bytes:
    """Make a certificate request (CSR, PEM) that names `identity`, if it is known yet, in its URI SAN.

    The SAN tells an operator who asks; the authority takes the identity from its own records, not from here.
    """
    builder = x509.CertificateSigningRequestBuilder(
        subject_name=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hanse")])
    )
    if identity is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
