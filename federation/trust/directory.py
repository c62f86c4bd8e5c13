"""Where a member's credentials lie: a directory that can be rewritten while others read it.

    DIR/tls.key -> ..data/tls.key      private key
    DIR/tls.crt -> ..data/tls.crt      chain, leaf first
    DIR/ca.crt  -> ..data/ca.crt       trust bundle
    DIR/..data  -> ..<digest>          the version in force; renaming this one link changes all three at once

These are the names and the links of a mounted `kubernetes.io/tls` Secret, so the same reader serves both. A
reader resolves `..data` once and reads the three files behind it: it never sees a key and a certificate that
do not belong together. A plain directory with the three files, without `..data`, can be read as well.
A directory has one writer at a time, and any number of readers.
This module refuses to know gRPC and identities.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from federation import durable
from federation.trust import certificates, keys

KEY_NAME: Final = "tls.key"
CHAIN_NAME: Final = "tls.crt"
BUNDLE_NAME: Final = "ca.crt"
_LINK: Final = "..data"

# A writer may replace the version between a reader's two steps; more often than this in a row it is no
# accident.
_READ_ATTEMPTS: Final = 10


class CredentialsUnusable(Exception):
    """The directory holds no credentials, or a key and a certificate that do not belong together."""


@dataclass(frozen=True, slots=True)
class Material:
    """One version of a member's credentials, in PEM. The key is kept out of `repr`."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    bundle_pem: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Names this version: hex, the same for the same bytes."""
        parts = (self.key_pem, self.chain_pem, self.bundle_pem)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]

    @property
    def files(self) -> dict[str, bytes]:
        """The files of a directory that holds this version."""
        return {KEY_NAME: self.key_pem, CHAIN_NAME: self.chain_pem, BUNDLE_NAME: self.bundle_pem}

    def check(self) -> None:
        """Make sure that key and leaf belong together and the bundle can be read.

        Raises: CredentialsUnusable.
        """
        try:
            if not certificates.belongs_to(certificates.load(self.chain_pem)[0], keys.from_pem(self.key_pem)):
                raise CredentialsUnusable("the private key and the certificate do not belong together")
            certificates.load(self.bundle_pem)
        except (certificates.InvalidCertificate, keys.InvalidKey) as error:
            raise CredentialsUnusable(str(error)) from error


def write(path: Path, material: Material) -> None:
    """Put a version in force, atomically; the directory becomes 0700 and the files are 0600.

    After a crash at any moment a reader finds the old version or the new one, whole.
    Raises: CredentialsUnusable, and nothing is changed; OSError.
    """
    material.check()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    version = path / f"..{material.digest}"
    if not version.exists():
        fresh = Path(tempfile.mkdtemp(prefix="..new-", dir=path))
        try:
            for name, content in material.files.items():
                _write_private(fresh / name, content)
            durable.sync(fresh)
            fresh.rename(version)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)  # a full disk must not be left fuller
            raise
    before = path / (path / _LINK).readlink() if (path / _LINK).is_symlink() else None
    _link(path / _LINK, version.name)
    for name in (KEY_NAME, CHAIN_NAME, BUNDLE_NAME):
        if not (path / name).is_symlink():
            _link(path / name, f"{_LINK}/{name}")
    durable.sync(path)
    for left in path.glob("..*"):
        if left.is_dir() and not left.is_symlink() and left not in (version, before):
            shutil.rmtree(left, ignore_errors=True)


def read(path: Path) -> Material:
    """Read the version in force.

    Raises: CredentialsUnusable if there is none, or its parts do not belong together.
    """
    for _ in range(_READ_ATTEMPTS):
        try:
            behind = (path / _LINK).resolve(strict=True) if (path / _LINK).is_symlink() else path
            material = Material(
                (behind / KEY_NAME).read_bytes(),
                (behind / CHAIN_NAME).read_bytes(),
                (behind / BUNDLE_NAME).read_bytes(),
            )
            material.check()
        except FileNotFoundError as error:
            missing = error
            continue
        except OSError as error:
            raise CredentialsUnusable(f"no credentials in {path}: {error.strerror}") from error
        return material
    raise CredentialsUnusable(f"no credentials in {path}: {missing.filename} is missing") from missing


def stamp(path: Path) -> tuple[object, ...]:
    """Something that changes whenever the version in force does; cheap, for asking often."""
    marks: list[object] = []
    for name in (KEY_NAME, CHAIN_NAME, BUNDLE_NAME):
        try:
            status = (path / name).stat()
        except OSError:
            marks.append(None)
        else:
            marks.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(marks)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(link: Path, target: str) -> None:
    """Make or replace a symbolic link in one step."""
    temporary = link.with_name(f"{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
