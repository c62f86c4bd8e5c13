"""What the authority signs, and what it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from coordinator.issuing import certificate_authority as issuing
from federation.trust import certificates, keys
from federation.trust.identity import (
    AggregatorIdentity,
    ClientIdentity,
    ClusterIdentity,
    CoordinatorIdentity,
    Identity,
)
from federation.wire.denials import Denial, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TD = "hanse.local"
CA = issuing.create(
    TD,
    keys.generate(),
    now=NOW - timedelta(days=1),
    lifetime=timedelta(days=100),
    serial=1,
    constrain_names=True,
)
ZURICH = ClusterIdentity(TD, "zurich")
KEY = keys.generate()
CSR = keys.request(KEY, ZURICH)


def issue(csr: bytes = CSR, identity: Identity = ZURICH, **changes: Any) -> bytes | Denial:
    arguments = {"now": NOW, "lifetime": timedelta(hours=1), "serial": 42} | changes
    return issuing.issue(CA, csr, identity, **arguments)


def leaf(outcome: bytes | Denial) -> x509.Certificate:
    assert isinstance(outcome, bytes), outcome
    return certificates.load(outcome)[0]


def test_the_authority_certificate() -> None:
    """Self-signed, CA:TRUE, signs leaves only, names its trust domain, and may do nothing else."""
    certificate = CA.certificate
    certificate.verify_directly_issued_by(certificate)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert certificates.trust_domain_of(certificate) == TD


@pytest.mark.parametrize(
    "identity, serves, dns",
    [
        (CoordinatorIdentity(TD), True, ["coordinator.hanse.local", "enrollment.hanse.local"]),
        (
            AggregatorIdentity(TD, "cardiology", "hospitals"),
            True,
            ["hospitals.cardiology.aggregator.hanse.local"],
        ),
        (ZURICH, False, []),
        (ClientIdentity(TD, "zurich", "cardiology", "hospitals", "heart"), False, []),
    ],
)
def test_a_leaf_says_what_the_authority_decided(identity: Identity, serves: bool, dns: list[str]) -> None:
    """One SPIFFE ID, the server names only for servers, the usages of the kind, never CA:TRUE."""
    certificate = leaf(issue(identity=identity))
    certificate.verify_directly_issued_by(CA.certificate)
    summary = certificates.summarise(certificates.to_pem(certificate))
    assert summary.identity == identity
    assert summary.serial == 42
    assert list(summary.dns_names) == dns
    assert summary.not_before == NOW - issuing.CLOCK_SKEW
    assert summary.not_after == NOW + timedelta(hours=1)
    assert not certificates.is_authority(certificate)
    usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) == serves
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages
    assert certificates.belongs_to(certificate, KEY)


def test_what_a_request_asks_for_is_ignored() -> None:
    """CA:TRUE, another identity, a server's name, signing rights: none of it is in the certificate."""
    greedy = (
        x509.CertificateSigningRequestBuilder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator.hanse.local")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(CoordinatorIdentity(TD).uri),
                    x509.DNSName("coordinator.hanse.local"),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuing._key_usage(signs_certificates=True), critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    want, got = leaf(issue()), leaf(issue(greedy))
    assert got.subject == want.subject
    assert list(got.extensions) == list(want.extensions)


def request_with(key: Any, algorithm: Any) -> bytes:
    built = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, algorithm)
    return built.public_bytes(serialization.Encoding.PEM)


def tampered() -> bytes:
    """The request with a bit of its signature changed."""
    der = bytearray(x509.load_pem_x509_csr(CSR).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "csr, detail",
    [
        (b"", "no certificate request"),
        (CSR[:-60], "no certificate request"),
        (certificates.to_pem(CA.certificate), "no certificate request"),
        (CSR + b" " * issuing.MAXIMUM_REQUEST_BYTES, "bytes"),
        (tampered(), "signature"),
        (request_with(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()), "P-256"),
        (request_with(rsa.generate_private_key(65537, 2048), hashes.SHA256()), "P-256"),
        (request_with(ed25519.Ed25519PrivateKey.generate(), None), "P-256"),
    ],
    ids=["empty", "cut", "certificate", "long", "tampered", "P-384", "RSA", "Ed25519"],
)
def test_bad_requests_are_denied(csr: bytes, detail: str) -> None:
    """The reason is CsrInvalid and the sentence says what is wrong."""
    got = issue(csr)
    assert isinstance(got, Denial)
    assert got.reason is Reason.CSR_INVALID
    assert detail in got.message


@given(st.integers(0, len(CSR) - 1), st.integers(1, 255))
def test_a_changed_byte_never_changes_the_key_that_is_signed(position: int, change: int) -> None:
    """Law: what a damaged request leads to is a denial or a certificate for the requester's own key."""
    damaged = bytearray(CSR)
    damaged[position] ^= change
    got = issue(bytes(damaged))
    if isinstance(got, Denial):
        assert got.reason is Reason.CSR_INVALID
    else:
        assert certificates.belongs_to(leaf(got), KEY)


def test_a_leaf_ends_with_its_authority() -> None:
    """No certificate outlives the CA that vouches for it, nor begins before it."""
    certificate = leaf(issue(lifetime=timedelta(days=1000)))
    assert certificate.not_valid_after_utc == CA.certificate.not_valid_after_utc
    begins = CA.certificate.not_valid_before_utc
    assert leaf(issue(now=begins)).not_valid_before_utc == begins


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"identity": ClusterIdentity("other.local", "zurich")}, "want an identity of hanse.local"),
        ({"dns_names": ["zurich.example"]}, "serves nothing"),
        ({"serial": 0}, "serial"),
        ({"serial": 2**160}, "serial"),
        ({"lifetime": timedelta(0)}, "lifetime"),
        ({"now": NOW + timedelta(days=200)}, "not in force"),
    ],
)
def test_mistakes_of_the_caller_are_errors(changes: dict[str, Any], message: str) -> None:
    """They are the hub's own fault, not the requester's, so they raise."""
    with pytest.raises(ValueError, match=message):
        issue(**changes)


def test_an_authority_from_elsewhere_is_checked() -> None:
    """Key and certificate must fit, the certificate must be a CA's, and for this trust domain."""
    assert issuing.load(CA.certificate, CA.key, TD) == CA
    with pytest.raises(issuing.AuthorityUnusable, match="does not belong"):
        issuing.load(CA.certificate, KEY, TD)
    with pytest.raises(issuing.AuthorityUnusable, match="not a CA's"):
        issuing.load(leaf(issue()), KEY, TD)
    with pytest.raises(issuing.AuthorityUnusable, match=r"want other\.local"):
        issuing.load(CA.certificate, CA.key, "other.local")
    with pytest.raises(issuing.AuthorityUnusable, match="P-256"):
        issuing.create(
            TD, ec.generate_private_key(ec.SECP384R1()), now=NOW, lifetime=timedelta(days=1), serial=1
        )


def test_no_key_is_in_a_repr() -> None:
    """What ends in a log by accident says only whose authority it is."""
    assert repr(CA) == "CertificateAuthority(trust_domain='hanse.local')"
