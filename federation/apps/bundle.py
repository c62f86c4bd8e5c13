"""An app directory as one archive with a name that follows from its content.

The hub packs an app once; edges fetch it, compare its digest with the one that their policy
allowed, and unpack it. The same files give the same bytes on every machine: entries are sorted,
carry one fixed date and mode, and are stored rather than compressed, because compressors differ
between versions and the digest must not. What goes in follows Flower's app bundles (FAB), so an
app that works as a FAB works as a bundle; a real FAB is accepted for unpacking as well.

This module reads app directories and never writes into them. It does not know what an app means,
imports nothing of Flower, and runs no code of the app.

Source: the FAB rules of `flwr.cli.build` and `flwr.common.constant`, flwr 1.41.
"""

import dataclasses
import hashlib
import io
import os
import pathlib
import stat
import tomllib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pathspec

from federation.apps import errors

PROJECT_FILE = "pyproject.toml"
MANIFEST_FILE = ".info/CONTENT"  # a FAB's own list of its files: "path,sha256,bits" a line
ENTRY_DATE = (2024, 10, 1, 0, 0, 0)  # Flower's FAB_DATE: any fixed one would do
ENTRY_MODE = 0o644

MAXIMUM_BUNDLE_BYTES = 10 * 1024 * 1024  # Flower's own limit for a FAB
MAXIMUM_UNPACKED_BYTES = 64 * 1024 * 1024  # source text compresses about fourfold; more is a bomb
MAXIMUM_FILES = 4096  # far above any app, and small enough to list in memory
MAXIMUM_PATH_CHARACTERS = 512  # leaves room for the directory within Linux's 4096
# What `pack` can make at most: the files, and each file's two headers with its name.
MAXIMUM_ARCHIVE_BYTES = MAXIMUM_BUNDLE_BYTES + MAXIMUM_FILES * 2 * (MAXIMUM_PATH_CHARACTERS + 128)

INCLUDED = (
    "**/*.py",
    "**/*.toml",
    "**/*.md",
    "**/*.yaml",
    "**/*.yml",
    "**/*.json",
    "**/*.jsonl",
    "/LICENSE*",
)
EXCLUDED = (
    ".*",  # hidden files and directories: editors, environments, version control
    "**/__pycache__/**",
    "**/*_test.py",
    "**/test_*.py",
    "build/**",
    "dist/**",
    "eggs/**",
    "lib/**",
    "lib64/**",
    "parts/**",
    "*.egg",
    "env/**",
    "venv/**",
    "ENV/**",
    "env.bak/**",
    "venv.bak/**",
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A packed app: the archive's bytes and their digest, `sha256:` and 64 hexadecimal digits."""

    data: bytes
    digest: str


def digest(data: bytes) -> str:
    """Name an archive by its content: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(directory: pathlib.Path) -> Bundle:
    """Pack the files of a Flower app directory into one archive.

    Law:    equal files (names and bytes) give equal archives, whatever their dates, modes, order on
            disk, and the machine.
    Units:  the files together hold at most `MAXIMUM_BUNDLE_BYTES`.
    Raises: NoAppDirectory, NoProject, InvalidProject (also for fab-include and fab-exclude that match
            nothing or ask for other kinds of files), BundleTooLarge; OSError for what cannot be read.
            The directory is only read.
    """
    paths = files(directory)
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    _check_size(directory, sizes)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(paths):
            entry = zipfile.ZipInfo(name, ENTRY_DATE)
            entry.create_system = 3  # Unix, on every platform
            entry.external_attr = (stat.S_IFREG | ENTRY_MODE) << 16
            archive.writestr(entry, paths[name].read_bytes())
    data = buffer.getvalue()
    return Bundle(data=data, digest=digest(data))


def files(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Choose the files of an app directory that belong to its bundle, by their relative names.

    Raises: NoAppDirectory, NoProject, InvalidProject.
    """
    if not directory.is_dir():
        raise errors.NoAppDirectory(f"there is no app directory {directory}")
    if not (directory / PROJECT_FILE).is_file():
        raise errors.NoProject(f"{directory} has no {PROJECT_FILE}, so it is not a Flower app")
    found = _walk(directory)
    ignore = directory / ".gitignore"
    if ignore.is_file() and not ignore.is_symlink():
        ignored = _spec(ignore.read_text(encoding="utf-8", errors="replace").splitlines())
        found = {name: path for name, path in found.items() if not ignored.match_file(name)}
    if PROJECT_FILE not in found:
        raise errors.InvalidProject(f"{PROJECT_FILE} of {directory} is excluded by its .gitignore")
    table = _flower_table(found[PROJECT_FILE])
    chosen = sorted(found)
    included, excluded = (_patterns(table, key, chosen) for key in ("fab-include", "fab-exclude"))
    if included:
        spec = _spec(included)
        chosen = [name for name in chosen if spec.match_file(name)]
    if excluded:
        spec = _spec(excluded)
        chosen = [name for name in chosen if not spec.match_file(name)]
    allowed, refused = _spec(INCLUDED), _spec(EXCLUDED)
    if included:
        foreign = [name for name in chosen if not allowed.match_file(name)]
        if foreign:
            raise errors.InvalidProject(
                f"fab-include of {directory / PROJECT_FILE} asks for {foreign[0]}, and a bundle holds only "
                "py, toml, md, yaml, yml, json, jsonl and LICENSE files"
            )
    kept = {name for name in chosen if allowed.match_file(name) and not refused.match_file(name)}
    return {name: found[name] for name in sorted(kept | {PROJECT_FILE})}


def unpack(data: bytes, directory: pathlib.Path) -> None:
    """Write a bundle's, or a Flower FAB's, files into a new or empty directory.

    Everything is checked before the first byte is written: names that leave the directory, links,
    duplicates, damaged entries, sizes and counts above the limits, and a FAB's own list of hashes.

    Raises: InvalidBundle or BundleTooLarge, with nothing written; OSError when writing fails;
            FileExistsError when the directory holds something already.
    """
    contents = read(data)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty")
    for name, content in contents.items():
        path = directory.joinpath(*name.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_file(path: pathlib.Path, wanted: str) -> bytes:
    """Return a bundle's bytes from its file, or from a directory of its parts in the order of their names.

    wanted: the digest that it must have; empty for any.
    Raises: InvalidBundle, BundleTooLarge, OSError.
    """
    # A mounted volume has links beside the parts, whose names begin with a dot.
    parts = sorted(part for part in path.iterdir() if part.name[0] != ".") if path.is_dir() else [path]
    if sum(part.stat().st_size for part in parts) > MAXIMUM_ARCHIVE_BYTES:
        raise errors.BundleTooLarge(f"the archive in {path} is larger than a bundle may be")
    data = b"".join(part.read_bytes() for part in parts)
    if wanted and digest(data) != wanted:
        raise errors.InvalidBundle(f"the archive in {path} has the digest {digest(data)}, want {wanted}")
    return data


def read(data: bytes) -> dict[str, bytes]:
    """Return an archive's files by relative name, checked as `unpack` says, without writing them.

    Raises: InvalidBundle, BundleTooLarge.
    """
    if len(data) > MAXIMUM_ARCHIVE_BYTES:
        raise errors.BundleTooLarge(f"the archive has {len(data)} bytes, more than a bundle may have")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_entries(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise errors.InvalidBundle(f"the archive is damaged or not a bundle: {error}") from error


def _read_entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAXIMUM_FILES:
        raise errors.BundleTooLarge(f"the archive has {len(entries)} files, more than {MAXIMUM_FILES}")
    if sum(entry.file_size for entry in entries) > MAXIMUM_UNPACKED_BYTES:
        raise errors.BundleTooLarge(f"the archive unpacks to more than {MAXIMUM_UNPACKED_BYTES} bytes")
    contents: dict[str, bytes] = {}
    for entry in entries:
        _check_entry(entry)
        if entry.filename in contents:
            raise errors.InvalidBundle(f"the archive has {entry.filename!r} twice")
        with archive.open(entry) as stream:
            # One byte more than declared: a lie about the size shows without unpacking it all.
            content = stream.read(entry.file_size + 1)
        if len(content) != entry.file_size:
            raise errors.InvalidBundle(f"{entry.filename!r} of the archive has another size than it declares")
        contents[entry.filename] = content
    for name in contents:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in contents:
                raise errors.InvalidBundle(f"the archive has {name!r} below a file")
    if PROJECT_FILE not in contents:
        raise errors.InvalidBundle(f"the archive has no {PROJECT_FILE}, so it is not a Flower app")
    manifest = contents.pop(MANIFEST_FILE, None)
    if manifest is not None:
        _check_manifest(manifest, contents)
    return contents


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    # A NUL ends what zipfile calls filename, so the name as it came is looked at as well.
    unsafe = (
        len(name) > MAXIMUM_PATH_CHARACTERS
        or "\\" in entry.orig_filename
        or ":" in name
        or any(ord(character) < 32 or ord(character) == 127 for character in entry.orig_filename)
        or any(part in {"", ".", ".."} or len(part.encode()) > 255 for part in name.split("/"))
    )
    if unsafe:
        raise errors.InvalidBundle(f"the archive has an unsafe name {name[:80]!r}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise errors.InvalidBundle(f"{name!r} of the archive is a link or device, not a file")
    if entry.flag_bits & 0x1:
        raise errors.InvalidBundle(f"{name!r} of the archive is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise errors.InvalidBundle(f"{name!r} of the archive is compressed in a way that is not allowed")


def _check_manifest(manifest: bytes, contents: Mapping[str, bytes]) -> None:
    listed = {}
    for line in manifest.decode("utf-8", "replace").splitlines():
        name, _, rest = line.rpartition(",")[0].rpartition(",")
        listed[name] = rest
    for name, content in contents.items():
        if listed.get(name) != hashlib.sha256(content).hexdigest():
            raise errors.InvalidBundle(f"{name!r} of the archive differs from its list {MANIFEST_FILE}")
    missing = sorted(set(listed) - set(contents))
    if missing:
        raise errors.InvalidBundle(
            f"the archive lists {missing[0]!r} in {MANIFEST_FILE} but has no such file"
        )


def _walk(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}

    def unreadable(error: OSError) -> None:
        # Left to itself, os.walk skips what it cannot read, and the digest would depend on permissions.
        raise error

    for parent, directories, names in os.walk(directory, onerror=unreadable, followlinks=False):
        # Hidden directories never count, and may be huge (.git, .venv): do not enter them.
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            path = pathlib.Path(parent, name)
            if path.is_symlink() or not path.is_file():
                continue
            found[path.relative_to(directory).as_posix()] = path
    return found


def _flower_table(project: pathlib.Path) -> Mapping[str, Any]:
    try:
        value: Any = tomllib.loads(project.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidProject(f"{project} is not valid TOML: {error}") from error
    for key in ("tool", "flwr", "app"):
        value = value.get(key, {})
        if not isinstance(value, dict):
            raise errors.InvalidProject(f"[tool.flwr.app] of {project} is not a table")
    return dict(value)


def _patterns(table: Mapping[str, Any], key: str, names: Sequence[str]) -> list[str]:
    if key not in table:
        return []
    value = table[key]
    if not isinstance(value, list) or not value or not all(isinstance(p, str) and p.strip() for p in value):
        raise errors.InvalidProject(f"{key} in [tool.flwr.app] must be a list of patterns, not empty")
    for pattern in value:
        try:
            spec = _spec([pattern])
        except ValueError as error:
            raise errors.InvalidProject(
                f"{key} in [tool.flwr.app] has an invalid pattern {pattern!r}"
            ) from error
        if not any(spec.match_file(name) for name in names):
            raise errors.InvalidProject(f"{key} in [tool.flwr.app] matches no file: {pattern!r}")
    return list(value)


def _spec(patterns: Sequence[str]) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(patterns)


def _check_size(directory: pathlib.Path, sizes: Mapping[str, int]) -> None:
    total = sum(sizes.values())
    if total > MAXIMUM_BUNDLE_BYTES:
        largest = max(sorted(sizes), key=lambda name: sizes[name])
        raise errors.BundleTooLarge(
            f"the files of {directory} hold {total} bytes and a bundle at most {MAXIMUM_BUNDLE_BYTES}; "
            f"the largest is {largest} with {sizes[largest]} bytes, leave it out with fab-exclude"
        )
    if len(sizes) > MAXIMUM_FILES:
        raise errors.BundleTooLarge(
            f"{directory} has {len(sizes)} files and a bundle at most {MAXIMUM_FILES}"
        )
