"""Images without Docker: archives that nodes import, as the Dockerfile's, and what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from simulations.lab import images
from simulations.lab.images import archive, layers, locks, sbom
from simulations.lab.images.targets import ENVIRONMENT, TARGETS, USER, Layer, reference

ROOT = Path(__file__).resolve().parents[4]
DOCKERFILE = (ROOT / "manifests" / "images" / "Dockerfile").read_text()


def layer(directory: Path, name: str, content: str) -> archive.LayerFile:
    """A small real layer with one file."""
    tree = directory / f"tree-{name}"
    (tree / "opt").mkdir(parents=True)
    (tree / "opt" / name).write_text(content)
    path = directory / f"{name}.tar"
    archive.pack(tree, path)
    return archive.LayerFile(path, archive.file_digest(path), path.stat().st_size, name)


def image(name: str, *files: archive.LayerFile) -> archive.Image:
    return archive.Image(
        reference=f"localhost/hanse/{name}:1",
        layers=files,
        architecture="amd64",
        entrypoint=("python3", "-m", name),
        environment={"A": "b"},
        user="65532:65532",
        labels={"title": name},
    )


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]


def test_an_archive_is_an_oci_layout_and_docker_reads_it_too(tmp_path: Path) -> None:
    """Every blob has the digest that its name says, and both indices lead to the same layers."""
    base, source = layer(tmp_path, "base", "python"), layer(tmp_path, "source", "hanse")
    archive.write([image("client", base, source)], tmp_path / "image.tar")
    files = read(tmp_path / "image.tar")
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    (listed,) = json.loads(files["index.json"])["manifests"]
    assert listed["annotations"]["io.containerd.image.name"] == "localhost/hanse/client:1"
    manifest = json.loads(files["blobs/" + listed["digest"].replace(":", "/")])
    assert [each["digest"] for each in manifest["layers"]] == [base.digest, source.digest]
    config = json.loads(files["blobs/" + manifest["config"]["digest"].replace(":", "/")])
    assert config["rootfs"]["diff_ids"] == [base.digest, source.digest]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["python3", "-m", "client"]
    (docker,) = json.loads(files["manifest.json"])
    assert docker["RepoTags"] == ["localhost/hanse/client:1"]
    assert all(name in files for name in (docker["Config"], *docker["Layers"]))


def test_a_shared_layer_is_once_in_an_archive(tmp_path: Path) -> None:
    """Two images on one base: three layers, not four."""
    base = layer(tmp_path, "base", "python")
    two = [image(name, base, layer(tmp_path, name, name)) for name in ("client", "edge-agent")]
    archive.write(two, tmp_path / "images.tar")
    blobs = [name for name in read(tmp_path / "images.tar") if name.startswith("blobs/")]
    assert len(blobs) == len(set(blobs)) == 3 + 2 * 2
    assert len(json.loads(read(tmp_path / "images.tar")["manifest.json"])) == 2


def test_a_layer_does_not_depend_on_who_makes_it_or_when(tmp_path: Path) -> None:
    """Dates and owners are left out, names are in order, links and modes stay."""
    paths = []
    for which in ("one", "two"):
        tree = tmp_path / which
        (tree / "bin").mkdir(parents=True)
        for name in sorted(["b", "a"], reverse=which == "two"):
            (tree / "bin" / name).write_text(name)
        (tree / "bin" / "a").chmod(0o755)
        (tree / "bin" / "link").symlink_to("a")
        paths.append(tmp_path / f"{which}.tar")
        archive.pack(tree, paths[-1], "usr/local")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with tarfile.open(paths[0]) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == [
        "usr", "usr/local", "usr/local/bin", "usr/local/bin/a", "usr/local/bin/b", "usr/local/bin/link",
    ]  # fmt: skip
    assert members["usr/local/bin/a"].mode == 0o755
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members.values()} == {(0, 0, 0, "")}


# --- the Dockerfile agrees ----------------------------------------------------------------------------------


def stages() -> dict[str, tuple[str, str]]:
    """Each stage of the Dockerfile: what it is from, and its text."""
    joined = DOCKERFILE.replace("\\\n", " ")
    parts = re.split(r"^FROM ", joined, flags=re.MULTILINE)[1:]
    found = {}
    for part in parts:
        head, _, body = part.partition("\n")
        base, _, name = head.partition(" AS ")
        found[name.strip()] = (base.strip(), body)
    return found


def inherited(name: str) -> str:
    """The text of a stage and of all that it stands on."""
    base, body = stages()[name]
    return (inherited(base) if base in stages() else "") + body


def test_the_dockerfile_has_the_same_targets() -> None:
    """Each image is a stage, and the last stages are the images."""
    assert list(stages())[-len(TARGETS) :] == list(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_the_dockerfile_agrees_on_user_entrypoint_and_environment(name: str) -> None:
    """Whoever moves from one way of building to the other changes no manifest."""
    text = inherited(name)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == f"{USER}:{USER}"
    entry = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[-1]
    assert tuple(json.loads(entry)) == TARGETS[name].entrypoint
    variables = dict(pair.split("=", 1) for pair in re.findall(r"^ENV (.+)$", text, re.MULTILINE)[-1].split())
    assert variables == ENVIRONMENT


@pytest.mark.parametrize("name", TARGETS)
def test_the_dockerfile_agrees_on_what_is_inside(name: str) -> None:
    """Envoy is in the coordinator alone, torch in one client and one aggregator, and Hanse comes last."""
    copied = re.findall(r"^COPY --from=(\S+)", inherited(name), re.MULTILINE)
    assert ("envoy" in copied) == (Layer.ENVOY in TARGETS[name].layers)
    assert ("packages-stores" in copied) == (Layer.STORES in TARGETS[name].layers)
    assert ("packages-torch" in copied) == (Layer.TORCH in TARGETS[name].layers)
    assert "packages" in copied
    assert copied[-1] == "source"
    assert TARGETS[name].layers[-1] is Layer.SOURCE


def test_the_dockerfile_names_only_stages_that_there_are() -> None:
    """Each COPY --from and each FROM leads to an earlier stage or to the one base."""
    earlier: list[str] = []
    for name, (base, body) in stages().items():
        assert base == "${BASE}" or base in earlier
        assert all(source in earlier for source in re.findall(r"--from=(\S+)", body))
        earlier.append(name)
    for path in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / each).exists() for each in path.split())


def test_every_package_in_the_dockerfile_is_checked_by_hash() -> None:
    """pip installs nothing that is not locked, and builds nothing."""
    installs = re.findall(r"pip install (.+?)(?:&&|$)", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    assert len(installs) == 6
    for each in installs:
        assert "--no-deps" in each
        assert ("--require-hashes" in each and "--only-binary=:all:" in each) or "--no-index" in each


# --- what is in an image ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["packages", "stores", "torch", "envoy", "build"])
def test_the_dockerfile_gets_its_locks_from_a_file_that_runs_alone(what: str) -> None:
    """Nothing but Python is there yet: isolated, and outside the checkout."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(locks.__file__)), str(ROOT / "requirements"), what],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert done.stdout == locks.select(ROOT / "requirements", what)
    assert done.stdout.count("--hash=sha256:") >= 1


def test_the_images_have_what_hanse_imports_and_no_tools() -> None:
    """The lock of the packages is base.txt without what only a checkout needs."""
    named = locks.entries(locks.select(ROOT / "requirements", "packages"))
    assert {"flwr", "numpy", "grpcio", "kopf", "kubernetes", "pydantic", "cryptography"} <= set(named)
    assert not set(named) & locks.NOT_IN_IMAGES
    assert not set(named) & {"pytest", "ruff", "mypy", "torch"}


def test_torch_is_added_to_the_packages_and_repeats_none() -> None:
    """The layer above has only what the one below lacks."""
    torch = locks.entries(locks.select(ROOT / "requirements", "torch"))
    assert {"torch", "scikit-learn"} <= set(torch)
    assert not set(torch) & set(locks.entries(locks.select(ROOT / "requirements", "packages")))


def test_what_opens_object_stores_is_obstore_alone() -> None:
    """One package without others of its own, in the images of those who open buckets: no client does."""
    assert set(locks.entries(locks.select(ROOT / "requirements", "stores"))) == {"obstore"}
    assert [name for name, target in TARGETS.items() if Layer.STORES in target.layers] == [
        "coordinator",
        "edge-agent",
        "aggregator-torch",
    ]


def test_an_aggregator_with_torch_has_what_the_hubs_own_has() -> None:
    """But for the door; and it shares its large layer with the client's."""
    assert set(TARGETS["coordinator"].layers) - {Layer.ENVOY} < set(TARGETS["aggregator-torch"].layers)
    for name in images.WITH_TORCH:
        assert Layer.TORCH in TARGETS[name].layers
        assert name not in images.DEFAULT


def test_a_lock_with_one_version_for_each_python_stays_whole() -> None:
    """Both lines are kept with their hashes; the installer chooses by the marker."""
    text = (
        "# Made\n"
        "numpy==2.4 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "numpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n"
        "zipp==3 \\\n    --hash=sha256:dd\n"
    )
    entries = locks.entries(text)
    assert list(entries) == ["numpy", "zipp"]
    assert locks.without(entries, {"zipp"}) + entries["zipp"] == text.removeprefix("# Made\n")


def test_the_source_layer_has_hanse_and_nothing_of_a_checkout() -> None:
    """All packages, no caches, no tests, no Go modules."""
    found = {str(path.relative_to(ROOT)) for path in layers.source_files(ROOT)}
    assert {"coordinator/__main__.py", "edge_agent/client/__main__.py", "federation/py.typed"} <= found
    assert not [name for name in found if re.search(r"__pycache__|/\.|^tests|/binaries/|go\.sum", name)]


@pytest.mark.parametrize(
    ("component", "want"),
    [
        (sbom.Component("deb", "libc6", "2.36-9+deb12u13"), "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13"),
        (sbom.Component("deb", "zlib1g", "1:1.2.13"), "pkg:deb/debian/zlib1g@1%3A1.2.13"),
        (sbom.Component("pypi", "Pydantic_Core", "2.50.4"), "pkg:pypi/pydantic-core@2.50.4"),
    ],
)
def test_a_component_has_a_package_url(component: sbom.Component, want: str) -> None:
    """As scanners look them up."""
    assert component.url == want


def test_the_list_of_contents_names_every_package_once(tmp_path: Path) -> None:
    """SPDX: the image contains each, with its version and the licence that it states."""
    described = tmp_path / "rich-14.3.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: rich\nVersion: 14.3\nLicense-Expression: MIT\n\nText: no header\n"
    )
    components = [*sbom.distributions(tmp_path), sbom.Component("deb", "libc6", "2.36")]
    document = sbom.document("localhost/hanse/client:1", "sha256:ab", components * 2, "2026-01-31T12:00:00Z")
    packages = {each["name"]: each for each in document["packages"]}
    assert list(packages) == ["localhost/hanse/client:1", "libc6", "rich"]
    assert packages["rich"]["licenseDeclared"] == "MIT"
    identifiers = [each["SPDXID"] for each in document["packages"]]
    assert len(identifiers) == len(set(identifiers))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", each) for each in identifiers)
    contained = [each["relatedSpdxElement"] for each in document["relationships"]]
    assert contained == identifiers


def test_an_unknown_image_is_refused_with_the_choice(tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(ValueError, match="There is no image server; choose among coordinator, edge-agent"):
        images.build(["server"], print, variables={"XDG_CACHE_HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_images_are_named_without_a_registry() -> None:
    """No node asks a registry for a name under localhost."""
    assert reference(TARGETS["client-torch"], "0.1.0") == "localhost/hanse/client-torch:0.1.0"


def test_only_the_newest_of_a_kind_are_kept(tmp_path: Path) -> None:
    """Layers and archives of half a gigabyte must not fill the disk."""
    for number in range(5):
        (tmp_path / f"client.{number}.tar").write_text("x")
        os.utime(tmp_path / f"client.{number}.tar", (number, number))
    (tmp_path / "other.tar").write_text("x")
    layers.keep_newest(tmp_path, "client.*.tar", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client.3.tar", "client.4.tar", "other.tar"]
