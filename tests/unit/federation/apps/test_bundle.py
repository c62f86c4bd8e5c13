"""Bundles are deterministic, hold what a FAB holds, and cannot harm the machine that unpacks them."""

import hashlib
import io
import os
import pathlib
import stat
import string
import zipfile

import hypothesis
import hypothesis.strategies as st
import pytest

from federation.apps import bundle, errors

PROJECT = """
[project]
name = "demo"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "hanse"
{extra}

[tool.flwr.app.components]
serverapp = "demo.server:app"
clientapp = "demo.client:app"
"""


def write(directory: pathlib.Path, files: dict[str, str], extra: str = "") -> pathlib.Path:
    for name, text in {"pyproject.toml": PROJECT.format(extra=extra), **files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def archive(entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("pyproject.toml", PROJECT.format(extra=""))
        for entry, content in entries:
            file.writestr(entry, content)
    return buffer.getvalue()


FILES = {
    "demo/__init__.py": "",
    "demo/client.py": "app = 1\n",
    "demo/server.py": "app = 2\n",
    "demo/weights.json": "{}",
    "demo/notes.txt": "no",
    "demo/client_test.py": "no",
    "demo/__pycache__/x.py": "no",
    "lib/vendored.py": "no",
    "build/out.py": "no",
    "dist/out.py": "no",
    ".hidden/secret.py": "no",
    ".env.py": "no",
    "LICENSE": "Apache-2.0",
    "README.md": "# demo",
    "conf/a.yaml": "a: 1",
    "conf/b.yml": "b: 1",
    "rows.jsonl": "{}",
}
WANT = [
    "LICENSE", "README.md", "conf/a.yaml", "conf/b.yml", "demo/__init__.py", "demo/client.py",
    "demo/server.py", "demo/weights.json", "pyproject.toml", "rows.jsonl",
]  # fmt: skip


def test_holds_what_a_fab_holds(tmp_path: pathlib.Path) -> None:
    """Only source, text and configuration files go in, sorted by name."""
    assert names(bundle.pack(write(tmp_path, FILES)).data) == WANT


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # inside flwr
def test_same_files_as_flower_builds(tmp_path: pathlib.Path) -> None:
    """Flower's own build of the same directory holds the same files."""
    build = pytest.importorskip("flwr.cli.build")
    app = write(tmp_path, {k: v for k, v in FILES.items() if not k.startswith((".", "dist/"))})
    fab = build.build_fab_from_disk(app)
    assert sorted(set(names(fab)) - {".info/CONTENT"}) == names(bundle.pack(app).data)


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # inside flwr
def test_a_real_fab_unpacks(tmp_path: pathlib.Path) -> None:
    """A FAB is accepted, and its files come out as they went in."""
    build = pytest.importorskip("flwr.cli.build")
    fab = build.build_fab_from_disk(write(tmp_path / "app", FILES))
    bundle.unpack(fab, tmp_path / "out")
    assert (tmp_path / "out/demo/client.py").read_text() == "app = 1\n"
    assert not (tmp_path / "out/.info").exists()


def test_equal_files_give_equal_bytes(tmp_path: pathlib.Path) -> None:
    """Dates, modes and the order of creation do not reach the digest."""
    one = write(tmp_path / "one", FILES)
    two = write(tmp_path / "two", dict(reversed(FILES.items())))
    os.utime(two / "demo/client.py", (1, 1))
    (two / "demo/server.py").chmod(0o755)
    assert bundle.pack(one) == bundle.pack(two)
    (two / "demo/server.py").write_text("app = 3\n")
    assert bundle.pack(one).digest != bundle.pack(two).digest


def test_digest_is_sha256_of_the_bytes(tmp_path: pathlib.Path) -> None:
    """The digest can be checked with sha256sum."""
    packed = bundle.pack(write(tmp_path, FILES))
    assert packed.digest == "sha256:" + hashlib.sha256(packed.data).hexdigest() == bundle.digest(packed.data)


def test_packing_leaves_the_directory_alone(tmp_path: pathlib.Path) -> None:
    """Nothing is written into the user's directory."""
    app = write(tmp_path, FILES)
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    bundle.pack(app)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_include_exclude_and_gitignore(tmp_path: pathlib.Path) -> None:
    """fab-include and fab-exclude choose, .gitignore removes."""
    app = write(
        tmp_path,
        {**FILES, ".gitignore": "rows.jsonl\n"},
        'fab-include = ["**/*.py", "README.md"]\nfab-exclude = ["demo/server.py"]',
    )
    assert names(bundle.pack(app).data) == [
        "README.md",
        "demo/__init__.py",
        "demo/client.py",
        "pyproject.toml",
    ]


@pytest.mark.parametrize(
    "extra",
    [
        "fab-include = []",
        'fab-include = ["*.nothing"]',
        'fab-exclude = "x"',
        'fab-include = ["demo/notes.txt"]',
    ],
)
def test_bad_patterns_are_refused(tmp_path: pathlib.Path, extra: str) -> None:
    """A pattern that Flower would refuse is refused here."""
    with pytest.raises(errors.InvalidProject):
        bundle.pack(write(tmp_path, FILES, extra))


def test_links_are_not_followed(tmp_path: pathlib.Path) -> None:
    """A link in the app directory does not bring in what it points to."""
    secret = tmp_path / "secret.py"
    secret.write_text("key")
    app = write(tmp_path / "app", {"a.py": ""})
    (app / "b.py").symlink_to(secret)
    (app / "away").symlink_to(tmp_path)
    assert names(bundle.pack(app).data) == ["a.py", "pyproject.toml"]


def test_a_large_app_names_its_largest_file(tmp_path: pathlib.Path) -> None:
    """Above the limit the message says which file to leave out."""
    app = write(tmp_path, {"small.py": "", "big.json": " " * (bundle.MAXIMUM_BUNDLE_BYTES + 1)})
    with pytest.raises(errors.BundleTooLarge, match=r"big\.json"):
        bundle.pack(app)


def test_what_is_not_an_app(tmp_path: pathlib.Path) -> None:
    """A missing directory and a directory without pyproject.toml are told apart."""
    with pytest.raises(errors.NoAppDirectory):
        bundle.pack(tmp_path / "nothing")
    with pytest.raises(errors.NoProject):
        bundle.pack(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[")
    with pytest.raises(errors.InvalidProject):
        bundle.pack(tmp_path)


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\..\\evil.py", "c:evil.py", "a//b.py", "./a.py",
     "x" * 600 + ".py", "x" * 300, "new\nline.py", link("link.py")],
)  # fmt: skip
def test_unsafe_entries_are_refused(tmp_path: pathlib.Path, entry: zipfile.ZipInfo | str) -> None:
    """Nothing is written when one entry is unsafe."""
    with pytest.raises(errors.InvalidBundle):
        bundle.unpack(archive([("good.py", b""), (entry, b"target")]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bombs_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small archives that unpack to much, and lies about sizes, are refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("pyproject.toml", "")
        file.writestr("zeros.json", bytes(bundle.MAXIMUM_UNPACKED_BYTES + 1))
    data = buffer.getvalue()
    assert len(data) < 1_000_000
    with pytest.raises(errors.BundleTooLarge):
        bundle.unpack(data, tmp_path / "out")
    size = (bundle.MAXIMUM_UNPACKED_BYTES + 1).to_bytes(4, "little")
    assert data.count(size) == 2
    with pytest.raises(errors.InvalidBundle):
        bundle.unpack(data.replace(size, (10).to_bytes(4, "little")), tmp_path / "out")
    monkeypatch.setattr(bundle, "MAXIMUM_FILES", 3)
    with pytest.raises(errors.BundleTooLarge):
        bundle.read(archive([("a", b""), ("b", b""), ("c", b"")]))


def test_contradictions_are_refused() -> None:
    """A name twice, a file that is a directory too, and no project are refused."""
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = archive([("a.py", b"1"), ("a.py", b"2")])
    for data in (twice, archive([("a", b""), ("a/b.py", b"")])):
        with pytest.raises(errors.InvalidBundle):
            bundle.read(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.py", "")
    with pytest.raises(errors.InvalidBundle, match=r"pyproject\.toml"):
        bundle.read(buffer.getvalue())


def test_a_fab_that_differs_from_its_list_is_refused() -> None:
    """The list of hashes inside a FAB must hold."""
    right = hashlib.sha256(b"a").hexdigest()
    project = hashlib.sha256(PROJECT.format(extra="").encode()).hexdigest()
    listing = f"pyproject.toml,{project},8\na.py,{right},8"
    assert bundle.read(archive([("a.py", b"a"), (".info/CONTENT", listing.encode())]))["a.py"] == b"a"
    for entries in ([("a.py", b"b")], [("a.py", b"a"), ("more.py", b"")], []):
        with pytest.raises(errors.InvalidBundle):
            bundle.read(archive([*entries, (".info/CONTENT", listing.encode())]))


def test_a_full_directory_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    """Unpacking wants a new or empty directory."""
    (tmp_path / "mine.py").write_text("mine")
    with pytest.raises(FileExistsError):
        bundle.unpack(archive([]), tmp_path)
    assert (tmp_path / "mine.py").read_text() == "mine"


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6).filter(
    lambda name: (
        name not in {"lib", "build", "dist", "eggs", "parts", "env", "venv"} and not name.startswith("test")
    )
)


@hypothesis.given(st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=200), max_size=6))
@hypothesis.settings(max_examples=40, deadline=None)
def test_unpack_gives_back_what_pack_took(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes]
) -> None:
    """Packing, unpacking and packing again changes nothing."""
    root = tmp_path_factory.mktemp("law")
    app = write(root / "app", {})
    for (folder, name), content in files.items():
        (app / folder).mkdir(exist_ok=True)
        (app / folder / f"{name}.py").write_bytes(content)
    packed = bundle.pack(app)
    bundle.unpack(packed.data, root / "out")
    assert bundle.pack(root / "out") == packed


@hypothesis.given(st.integers(min_value=0), st.integers(1, 255))
@hypothesis.settings(max_examples=200, deadline=None)
def test_any_corrupted_byte_is_a_typed_error_or_harmless(position: int, flip: int) -> None:
    """Whatever byte is damaged, reading ends in a typed error or in safe names."""
    data = bytearray(archive([("a.py", b"print(1)"), ("b/c.py", b"print(2)")]))
    data[position % len(data)] ^= flip
    try:
        contents = bundle.read(bytes(data))
    except errors.AppError:
        return
    assert all(not name.startswith("/") and ".." not in name.split("/") for name in contents)


@hypothesis.given(st.binary(max_size=300))
def test_rubbish_is_a_typed_error(data: bytes) -> None:
    """Bytes that are no archive are refused as such."""
    with pytest.raises(errors.InvalidBundle):
        bundle.read(data)
