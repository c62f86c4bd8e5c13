"""The federation's certificate authority: what it signs, and everything that it does not.

A certificate says what the authority decided, never what a request asked for: of a certificate request only
the public key is taken, after its signature has proved that the other side holds the private half.
Pure but for the signature's own nonce: times, serial numbers and keys are arguments. This module refuses to
know files, tokens and whether somebody should get a certificate.

Source: RFC 5280 (profile), SPIFFE X.509-SVID (exactly one URI among the names; CA:FALSE; digitalSignature).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.trust import certificates
from federation.trust import identity as identities
from federation.wire import denials

# The clocks of hub and edges differ; a new certificate must be good at once for one that is a little behind.
CLOCK_SKEW: Final = timedelta(minutes=5)

# A request is a key, a name and a signature: some 500 bytes. More is not worth parsing.
MAXIMUM_REQUEST_BYTES: Final = 16 * 1024

# RFC 5280 section 4.1.2.2: positive and at most 20 bytes.
MAXIMUM_SERIAL: Final = 2**159 - 1


class AuthorityUnusable(ValueError):
    """Key and certificate are not those of an authority that can sign here."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A CA certificate and its key. Build it with `create`, or from what lies in a Secret with `load`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trust_domain: str

    def __repr__(self) -> str:
        return f"CertificateAuthority(trust_domain={self.trust_domain!r})"

    @property
    def certificate_pem(self) -> bytes:
        """The CA certificate: the trust bundle of a federation with one CA."""
        return certificates.to_pem(self.certificate)


def create(
    trust_domain: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
    lifetime: timedelta,
    serial: int,
    constrain_names: bool = False,
) -> CertificateAuthority:
    """Make a self-signed CA for one trust domain; it signs leaves only (pathlen 0).

    constrain_names: let it vouch only for DNS names and URIs of the trust domain, where others trust this CA
    too.
    Raises: identity.InvalidIdentity; AuthorityUnusable (key not on P-256); ValueError (serial, lifetime).
    """
    identities.check_trust_domain(trust_domain)
    _check_curve(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hanse"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"hanse CA {serial:x}"[:64]),
        ]
    )
    builder = (
        _dated(now, lifetime, serial)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
    )
    if constrain_names:
        permitted = [x509.DNSName(trust_domain), x509.UniformResourceIdentifier(trust_domain)]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    return CertificateAuthority(builder.sign(key, hashes.SHA256()), key, trust_domain)


def load(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, trust_domain: str
) -> CertificateAuthority:
    """Take a CA made elsewhere (cert-manager, an operator).

    Raises: AuthorityUnusable if the key is not the certificate's, not on P-256, or the certificate is no
    CA's.
    """
    identities.check_trust_domain(trust_domain)
    _check_curve(key.public_key())
    if not certificates.is_authority(certificate):
        raise AuthorityUnusable("the certificate is not a CA's (no CA:TRUE)")
    if not certificates.belongs_to(certificate, key):
        raise AuthorityUnusable("the private key does not belong to the CA certificate")
    said = certificates.trust_domain_of(certificate)
    if said is not None and said != trust_domain:
        raise AuthorityUnusable(f"the CA certificate is for trust domain {said}, want {trust_domain}")
    return CertificateAuthority(certificate, key, trust_domain)


def issue(
    authority: CertificateAuthority,
    csr_pem: bytes,
    identity: identities.Identity,
    *,
    now: datetime,
    lifetime: timedelta,
    serial: int,
    dns_names: Sequence[str] = (),
) -> bytes | denials.Denial:
    """Sign a leaf certificate (PEM) for `identity` and the key of the request.

    It is good from CLOCK_SKEW before `now` to `lifetime` after, and no longer than the CA. Coordinator and
    aggregator get it for serving and calling, with `dns_names` (their `server_names` are always among them);
    clusters and clients for calling only. Nothing of the request but its key is used.
    Returns Denial(CSR_INVALID) for a request that is none, is too long, has a bad signature, or a key that is
    not on P-256.
    Raises: ValueError for what the caller got wrong: serial, lifetime, another trust domain, DNS names for an
    identity that serves nothing, a CA that is not in force at `now`.
    """
    if identity.trust_domain != authority.trust_domain:
        raise ValueError(f"want an identity of {authority.trust_domain}, got {identity.uri}")
    if not authority.certificate.not_valid_before_utc <= now < authority.certificate.not_valid_after_utc:
        raise ValueError("the CA certificate is not in force; put a new CA in place")
    key = _requested_key(csr_pem)
    if isinstance(key, denials.Denial):
        return key
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if isinstance(identity, identities.CoordinatorIdentity | identities.AggregatorIdentity):
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        names += [x509.DNSName(name) for name in dict.fromkeys((*identity.server_names, *dns_names))]
    elif dns_names:
        raise ValueError(f"{identity.uri} serves nothing and gets no DNS names")
    issuer_key = authority.key.public_key()
    rest = authority.certificate.not_valid_after_utc - now
    builder = (
        _dated(now, min(lifetime, rest), serial, not_before=authority.certificate.not_valid_before_utc)
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hanse"),
                    x509.NameAttribute(NameOID.COMMON_NAME, identity.kind),
                ]
            )
        )
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    return certificates.to_pem(builder.sign(authority.key, hashes.SHA256()))


def _requested_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey | denials.Denial:
    if len(csr_pem) > MAXIMUM_REQUEST_BYTES:
        return _invalid(f"it has {len(csr_pem)} bytes, at most {MAXIMUM_REQUEST_BYTES} are read")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
    except Exception:  # whatever a parser of foreign bytes raises
        return _invalid("it is no certificate request in PEM")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return _invalid("its key is not an ECDSA P-256 key")
    if not request.is_signature_valid:
        return _invalid("its signature does not fit its key")
    return key


def _invalid(detail: str) -> denials.Denial:
    return denials.denial(denials.Reason.CSR_INVALID, detail=detail)


def _dated(
    now: datetime, lifetime: timedelta, serial: int, *, not_before: datetime | None = None
) -> x509.CertificateBuilder:
    if lifetime <= timedelta(0):
        raise ValueError(f"want a lifetime above zero, got {lifetime}")
    if not 0 < serial <= MAXIMUM_SERIAL:
        raise ValueError("want a serial number from 1 to 2^159 - 1")
    start = now - CLOCK_SKEW
    return (
        x509.CertificateBuilder()
        .serial_number(serial)
        .not_valid_before(max(start, not_before) if not_before else start)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_curve(key: ec.EllipticCurvePublicKey) -> None:
    if not isinstance(key.curve, ec.SECP256R1):
        raise AuthorityUnusable(f"want a CA key on P-256, got {key.curve.name}")
