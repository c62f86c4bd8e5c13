"""Models in S3-compatible storage and in another: real servers, the real aggregator, and how they refuse."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.clients import blobs
from tests.conformance import hanse_host
from tests.fakes import s3, webhdfs
from tests.process import federations

pytestmark = [pytest.mark.process]

URL = f"s3://{s3.BUCKET}/group/{hanse_host.NAMESPACE}/{hanse_host.NAME}"
TINY = {"rounds": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.serve() as server:
        yield server


def mounted(directory: Path, files: dict[str, bytes]) -> Path:
    """A Secret as kubelet mounts it: links to a directory with a dot."""
    (directory / "..data").mkdir(parents=True)
    for name, value in files.items():
        (directory / "..data" / name).write_bytes(value)
        (directory / name).symlink_to(Path("..data", name))
    return directory


async def train(
    work: Path,
    secret: dict[str, bytes],
    store: str = f"s3://{s3.BUCKET}/group",
    *,
    dies_at: dict[str, int] | None = None,
    **model: object,
) -> None:
    """Run two rounds of the tiny app with this store; its aggregator may be killed at named places."""
    app = federations.Federation(federations.honest(1)).write(work / "federation") / "app"
    await hanse_host.run(
        app, [{"name": "a"}, {"name": "b"}], TINY, work / "run",
        spec={"clusters": {"minimum": 2}, "model": {"store": store, **model}},
        settings={"model_store": store, "model_store_credentials": mounted(work / "secret", secret)},
        dies_at=dies_at,
    )  # fmt: skip


def left_in(directory: Path, pattern: str = "*") -> list[Path]:
    """The files below a directory."""
    return [path for path in directory.rglob(pattern) if path.is_file()]


async def test_a_training_leaves_its_model_in_the_bucket(server: s3.Server, tmp_path: Path) -> None:
    """The card names the SHA-256 of the model beside it, and older rounds than keepRounds go.

    The manifest's endpoint counts before the Secret's: who narrows the way out there is not led elsewhere.
    """
    key = blobs.Key(server.secret())
    for number in (0, 1):
        blobs.save(f"{URL}/{number}", {blobs.MODEL: b"old", blobs.CARD: b"{}"}, key)
    secret = server.secret(AWS_ENDPOINT_URL="http://127.0.0.1:1")
    await train(tmp_path, secret, keepRounds=1, endpoint=server.url)
    assert blobs.list_rounds(URL, key) == [2]
    card = json.loads(blobs.read(f"{URL}/2", blobs.CARD, key))
    model = blobs.read(f"{URL}/2", blobs.MODEL, key)
    assert card["sha256"] == hashlib.sha256(model).hexdigest()
    assert card["round"] == 2
    assert_told_nowhere(tmp_path, server.writer.values())


async def test_a_store_that_refuses_ends_the_training_before_its_first_round(
    server: s3.Server, tmp_path: Path
) -> None:
    """Nobody trains for hours and then learns that the key is wrong; and the key is in no log."""
    keys = {**server.writer, "AWS_SECRET_ACCESS_KEY": "not-the-right-one-42"}
    with pytest.raises(RuntimeError, match=r"StorageUnavailable: .*SignatureDoesNotMatch") as refused:
        await train(tmp_path, server.secret(keys))
    assert not any(value in str(refused.value) for value in keys.values())
    assert_told_nowhere(tmp_path, keys.values())
    assert_nothing_was_trained(tmp_path)


async def test_a_training_leaves_its_model_in_a_storage_that_is_not_s3(tmp_path: Path) -> None:
    """Any of fsspec's will do: the Secret's options.json opens it, and directories are made as needed."""
    with webhdfs.serve(tmp_path / "storage") as storage:
        key = blobs.Key(storage.secret())
        url = blobs.training_url(storage.url, hanse_host.NAMESPACE, hanse_host.NAME)
        for number in (0, 1):
            blobs.save(f"{url}/{number}", {blobs.MODEL: b"old", blobs.CARD: b"{}"}, key)
        await train(tmp_path, storage.secret(), storage.url, keepRounds=1)
        assert blobs.list_rounds(url, key) == [2]
        card = json.loads(blobs.read(f"{url}/2", blobs.CARD, key))
        blobs.fetch(f"{url}/2", blobs.MODEL, tmp_path / "fetched", key)
    assert card["sha256"] == hashlib.sha256((tmp_path / "fetched").read_bytes()).hexdigest()
    assert_told_nowhere(tmp_path, [webhdfs.PASSWORD])


async def test_a_storage_that_is_away_costs_nothing_that_was_trained(tmp_path: Path) -> None:
    """Neither as another aggregator begins in mid-training, nor when all is done: then it is waited for."""
    asked: list[str] = []

    def away(file: Path) -> bool:
        asked.append(file.name)
        if file.name.startswith(".probe-"):
            return asked.count(file.name) < len(asked)  # any but the first
        return file.name == blobs.MODEL and asked.count(blobs.MODEL) <= 2

    with webhdfs.serve(tmp_path / "storage", away) as storage:
        await train(tmp_path, storage.secret(), storage.url, dies_at={"aggregator.batch-sent": 2})
        url = blobs.training_url(storage.url, hanse_host.NAMESPACE, hanse_host.NAME)
        card = json.loads(blobs.read(f"{url}/2", blobs.CARD, blobs.Key(storage.secret())))
        model = blobs.read(f"{url}/2", blobs.MODEL, blobs.Key(storage.secret()))
    assert card["sha256"] == hashlib.sha256(model).hexdigest()
    said = "".join(path.read_text() for path in left_in(tmp_path / "run" / "logs", "aggregator*"))
    assert "server app runs again" in said
    assert said.count("model not stored yet") == asked.count(blobs.MODEL) - 1 == 2
    assert f"{storage.url} does not take the model: " in said
    assert_told_nowhere(tmp_path, [webhdfs.PASSWORD])


async def test_another_storage_that_refuses_ends_the_training_before_its_first_round(tmp_path: Path) -> None:
    """What it says may quote the password, as this one does, so its words are not passed on."""
    want = r"StorageUnavailable: .*PermissionError; check the store with its own tools"
    with webhdfs.serve(tmp_path / "storage") as storage, pytest.raises(RuntimeError, match=want):
        await train(tmp_path, storage.secret("not-the-right-one-42"), storage.url)
    assert_told_nowhere(tmp_path, ["not-the-right-one-42"])
    assert_nothing_was_trained(tmp_path)


async def test_a_storage_whose_package_is_missing_ends_the_training_before_its_first_round(
    tmp_path: Path,
) -> None:
    """The sentence names the package."""
    want = r"StorageUnavailable: .*lakefs_spec is not installed where this runs; use an image"
    with pytest.raises(RuntimeError, match=want):
        await train(tmp_path, {"options.json": b"{}"}, "lakefs://models/main")
    assert_nothing_was_trained(tmp_path)


def assert_nothing_was_trained(directory: Path) -> None:
    """No round has begun."""
    logs = left_in(directory, "*.log")
    assert logs
    assert "training round 1" not in "".join(path.read_text() for path in logs)


def assert_told_nowhere(directory: Path, values: Iterable[str]) -> None:
    """Nothing that a run left has what opens the store, but for the Secret itself."""
    written = [path for path in left_in(directory) if "secret" not in path.parts]
    assert len(written) > 10
    for value in values:
        assert [path for path in written if value.encode() in path.read_bytes()] == []


def refusal(url: str, files: dict[str, bytes], endpoint: str = "") -> str:
    """What the check says."""
    with pytest.raises(blobs.BlobError) as error:
        blobs.check(url, blobs.Key(files, endpoint))
    assert "\n" not in str(error.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if len(files.get(name, b"")) > 5:
            assert files[name].decode() not in str(error.value)
    return str(error.value)


def test_each_refusal_is_one_sentence_with_the_next_step(server: s3.Server) -> None:
    """Of the server's, and of the connection's; none quotes what opened the store."""
    plain, good = server.url, server.secret()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: nobody answers there
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        cases = {
            "there is no bucket missing at": ("s3://missing/x", good),
            "is denied; allow s3:PutObject": ("s3://others/x", good),
            f"access to bucket {s3.BUCKET}": (URL, server.secret(server.reader)),
            "does not accept the access key (SignatureDoesNotMatch)": (
                URL, good | {"AWS_SECRET_ACCESS_KEY": b"wrong-wrong"},
            ),
            "does not accept the access key (InvalidAccessKeyId)": (
                URL, good | {"AWS_ACCESS_KEY_ID": b"AKIAWRONGWRONG"},
            ),
            f"{closed} does not answer; check the endpoint": (URL, server.secret(AWS_ENDPOINT_URL=closed)),
            "cannot be resolved": (URL, server.secret(AWS_ENDPOINT_URL="https://s3.nowhere.invalid")),
            "does not speak TLS; write http://": (
                URL, server.secret(AWS_ENDPOINT_URL=plain.replace("http", "https")),
            ),
            "the endpoint is no URL like https://": (URL, server.secret(AWS_ENDPOINT_URL="s3.example.org")),
            "AWS_SECRET_ACCESS_KEY is missing; correct the Secret": (
                URL, good | {"AWS_SECRET_ACCESS_KEY": b""},
            ),
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are missing": (URL, {"user": b"me"}),
            "name a bucket": ("s3:///x", good),
            "options.json is missing": ("webhdfs://host/x", good),
        }  # fmt: skip
        for want, (url, files) in cases.items():
            assert want in refusal(url, files), want


def certificate(directory: Path) -> tuple[Path, Path, bytes]:
    """A server's chain and key for 127.0.0.1, and the certificate of its authority."""
    now = datetime.now(UTC)

    def made(
        subject: str, issuer: str, own: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        return (
            x509.CertificateBuilder()
            .subject_name(name(subject)).issuer_name(name(issuer))
            .public_key(own.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        )  # fmt: skip

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = made("ca", "ca", authority, authority).sign(authority, hashes.SHA256())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = made("s3", "ca", own, authority).add_extension(address, critical=False)
    root_pem = root.public_bytes(serialization.Encoding.PEM)
    signed = leaf.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(signed + root_pem)
    key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, key, root_pem


def test_a_private_authority_is_trusted_by_the_secrets_ca_crt(tmp_path: Path) -> None:
    """Without it the refusal says so; the name in the certificate is checked either way."""
    chain, key, root = certificate(tmp_path)
    with s3.serve("--certificate", chain, "--key", key) as server:
        assert "is not trusted (UnknownIssuer); put its authority's certificate" in refusal(
            URL, server.secret()
        )
        trusted = server.secret() | {"ca.crt": root}
        blobs.check(URL, blobs.Key(trusted))
        other = trusted | {"AWS_ENDPOINT_URL": server.url.replace("127.0.0.1", "localhost").encode()}
        assert "is not trusted (NotValidForName" in refusal(URL, other)
