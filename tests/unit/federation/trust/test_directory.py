"""The credential directory: one version at a time, for the owner's eyes only."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from federation.trust import credentials, directory
from federation.trust.identity import ClusterIdentity
from tests.fakes import certificates as fakes

ZURICH = ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")


@pytest.fixture(scope="module")
def versions() -> list[directory.Material]:
    authority = fakes.Authority()
    issued = [authority.client(ZURICH) for _ in range(6)]
    return [directory.Material(one.key_pem, one.chain_pem, one.bundle_pem) for one in issued]


def test_reads_what_was_written(tmp_path: Path, versions: list[directory.Material]) -> None:
    """The last version written is the one in force; identity and expiry are read from it."""
    for version in versions:
        directory.write(tmp_path / "edge", version)
        assert directory.read(tmp_path / "edge") == version
    made = credentials.CredentialDirectory(tmp_path / "edge")
    assert made.exists()
    assert made.identity() == ZURICH
    assert made.expires_at() == made.summary().not_after


def test_only_the_owner_can_read(tmp_path: Path, versions: list[directory.Material]) -> None:
    """Directories are 0700 and files 0600, the outer directory too if it was there before."""
    (tmp_path / "edge").mkdir(mode=0o755)
    directory.write(tmp_path / "edge", versions[0])
    for path in [tmp_path / "edge", *(tmp_path / "edge").rglob("*")]:
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_old_versions_are_removed(tmp_path: Path, versions: list[directory.Material]) -> None:
    """The version in force and the one before it stay, for readers that are in the middle of it."""
    for version in versions:
        directory.write(tmp_path, version)
    kept = {path.name for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()}
    assert kept == {f"..{versions[-1].digest}", f"..{versions[-2].digest}"}


def test_the_same_version_again_changes_nothing(tmp_path: Path, versions: list[directory.Material]) -> None:
    """Writing is idempotent: the stamp stays, so nobody reloads."""
    directory.write(tmp_path, versions[0])
    before = directory.stamp(tmp_path)
    directory.write(tmp_path, versions[0])
    assert directory.stamp(tmp_path) == before
    directory.write(tmp_path, versions[1])
    assert directory.stamp(tmp_path) != before


def test_readers_never_see_two_versions_mixed(tmp_path: Path, versions: list[directory.Material]) -> None:
    """While one thread writes versions in turn, each read is one of them, whole."""
    directory.write(tmp_path, versions[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            directory.write(tmp_path, versions[turn % len(versions)])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert directory.read(tmp_path) in versions
    finally:
        writer.join()


@pytest.mark.parametrize("step", ["_write_private", "durable.sync", "_link"])
def test_a_failure_at_any_step_leaves_the_old_version(
    step: str, tmp_path: Path, versions: list[directory.Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of a write: the old version stays in force, and a new try succeeds."""
    directory.write(tmp_path, versions[0])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"{directory.__name__}.{step}", fail)
        with pytest.raises(OSError, match="No space left"):
            directory.write(tmp_path, versions[1])
    assert directory.read(tmp_path) == versions[0]
    assert not list(tmp_path.glob("..new-*"))
    directory.write(tmp_path, versions[1])
    assert directory.read(tmp_path) == versions[1]


def test_a_mounted_secret_is_read_alike(tmp_path: Path, versions: list[directory.Material]) -> None:
    """Plain files, or files behind the links that the kubelet makes."""
    version = versions[0]
    behind = tmp_path / "..2026_01_01_00_00_00.1"
    behind.mkdir()
    (behind / "tls.key").write_bytes(version.key_pem)
    (behind / "tls.crt").write_bytes(version.chain_pem)
    (behind / "ca.crt").write_bytes(version.bundle_pem)
    assert directory.read(behind) == version
    (tmp_path / "..data").symlink_to(behind.name)
    for name in ("tls.key", "tls.crt", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert directory.read(tmp_path) == version


def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, versions: list[directory.Material]
) -> None:
    """Neither written nor read."""
    mixed = directory.Material(versions[0].key_pem, versions[1].chain_pem, versions[0].bundle_pem)
    with pytest.raises(directory.CredentialsUnusable, match="do not belong together"):
        directory.write(tmp_path, mixed)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tls.key").write_bytes(mixed.key_pem)
    (tmp_path / "tls.crt").write_bytes(mixed.chain_pem)
    (tmp_path / "ca.crt").write_bytes(mixed.bundle_pem)
    with pytest.raises(directory.CredentialsUnusable, match="do not belong together"):
        directory.read(tmp_path)


def test_an_empty_directory_says_what_is_missing(tmp_path: Path) -> None:
    """One sentence with the file's name; the key is in no repr."""
    with pytest.raises(directory.CredentialsUnusable, match=r"tls\.key is missing"):
        directory.read(tmp_path)
    assert not credentials.CredentialDirectory(tmp_path / "nothing").exists()


def test_a_key_is_not_in_its_repr(versions: list[directory.Material]) -> None:
    """What ends in a log by accident holds no key."""
    assert "PRIVATE" not in repr(versions[0])
