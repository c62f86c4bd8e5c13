"""Keys, requests, reading certificates, bundles and pins."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from federation.trust import bundle, certificates, keys
from federation.trust.identity import ClusterIdentity, CoordinatorIdentity
from tests.fakes import certificates as fakes

ZURICH = ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")
AUTHORITY = fakes.Authority()


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, secret: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if secret:
        encryption = serialization.BestAvailableEncryption(secret)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_key_survives_its_file_form() -> None:
    """to_pem and from_pem undo each other."""
    key = keys.generate()
    assert keys.from_pem(keys.to_pem(key)).private_numbers() == key.private_numbers()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(rsa.generate_private_key(65537, 2048)),
        pem_of(keys.generate(), b"password"),
    ],
    ids=["empty", "broken", "P-384", "RSA", "encrypted"],
)
def test_other_keys_are_refused(pem: bytes) -> None:
    """Only an unencrypted P-256 key is one."""
    with pytest.raises(keys.InvalidKey):
        keys.from_pem(pem)


def test_a_request_names_its_identity() -> None:
    """The CSR's signature holds and its SAN has the SPIFFE ID; without an identity there is no SAN."""
    request = x509.load_pem_x509_csr(keys.request(keys.generate(), ZURICH))
    assert request.is_signature_valid
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [ZURICH.uri]
    assert len(x509.load_pem_x509_csr(keys.request(keys.generate())).extensions) == 0


def test_a_certificate_says_whose_and_until_when() -> None:
    """Identity, serial, dates, fingerprint and DNS names."""
    hub = CoordinatorIdentity(fakes.TRUST_DOMAIN)
    issued = AUTHORITY.server(hub, dns=["hub.example"])
    summary = certificates.summarise(issued.chain_pem)
    assert summary.identity == hub
    assert summary.serial == issued.serial
    assert summary.not_before < AUTHORITY.now < summary.not_after
    assert summary.dns_names == ("coordinator.hanse.local", "enrollment.hanse.local", "hub.example")
    assert summary.fingerprint == certificates.fingerprint(certificates.load(issued.chain_pem)[0])


def test_a_ca_is_no_member() -> None:
    """A CA certificate names a trust domain, not an identity."""
    assert certificates.trust_domain_of(AUTHORITY.ca.certificate) == fakes.TRUST_DOMAIN
    with pytest.raises(certificates.InvalidCertificate):
        certificates.summarise(AUTHORITY.bundle_pem)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(AUTHORITY.bundle_pem[:300].__add__))
def test_foreign_bytes_are_invalid_and_nothing_else(data: bytes) -> None:
    """Whatever is not a certificate ends as InvalidCertificate."""
    with pytest.raises(certificates.InvalidCertificate):
        certificates.load(data)


def test_a_pin_is_what_kubeadm_and_openssl_compute(tmp_path: Path) -> None:
    """SHA-256 of the public key's DER, checked against openssl's."""
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.bundle_pem)
    public = subprocess.run(
        ["openssl", "x509", "-pubkey", "-noout", "-in", str(tmp_path / "ca.crt")],
        capture_output=True,
        check=True,
    ).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"], input=public, capture_output=True, check=True
    ).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True)
    assert AUTHORITY.pin == "sha256:" + digest.stdout.decode().split()[0]


def test_a_bundle_holds_several_authorities_once_each() -> None:
    """Merging keeps order and drops doubles; each pin is found, another is not."""
    other, stranger = fakes.Authority(), fakes.Authority()
    merged = bundle.merge(AUTHORITY.bundle_pem, other.bundle_pem, AUTHORITY.bundle_pem)
    assert certificates.load(merged) == [AUTHORITY.ca.certificate, other.ca.certificate]
    bundle.verify_contains(merged, AUTHORITY.pin)
    bundle.verify_contains(merged, other.pin.upper().replace("SHA", "sha"))
    with pytest.raises(bundle.PinNotFound, match="compare the hash with the hub's operator"):
        bundle.verify_contains(merged, stranger.pin)


def test_a_leaf_with_the_pinned_key_is_no_authority() -> None:
    """Only a CA certificate can match a pin."""
    leaf = certificates.load(AUTHORITY.client(ZURICH).chain_pem)
    with pytest.raises(bundle.PinNotFound):
        bundle.find_pinned(leaf, bundle.pin(leaf[0]))


def test_a_ca_certificate_that_somebody_changed_does_not_match() -> None:
    """The pinned public key with other fields around it, signed by another key, is not the pinned CA."""
    theirs = keys.generate()
    real = AUTHORITY.ca.certificate
    changed = (
        x509.CertificateBuilder(
            issuer_name=real.subject,
            subject_name=real.subject,
            public_key=real.public_key(),
            serial_number=1,
            not_valid_before=real.not_valid_before_utc,
            not_valid_after=real.not_valid_after_utc,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(theirs, real.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    assert bundle.pin(changed) == AUTHORITY.pin
    with pytest.raises(bundle.PinNotFound):
        bundle.find_pinned([changed], AUTHORITY.pin)
