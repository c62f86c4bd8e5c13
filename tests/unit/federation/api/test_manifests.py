"""Reading manifests: files, directories, kustomizations, and one sentence for whatever is wrong with them."""

# ruff: noqa: E501 - each wanted sentence stands in one piece

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.api import errors, manifests, yaml_text

TRAINING = """\
apiVersion: hanse.dev/v1alpha1
kind: FederatedTraining
metadata: {name: hospitals}
spec:
  app: {source: {configMap: {name: hospitals-app}}}
  dataset: heart-disease
"""
POLICY = """\
apiVersion: hanse.dev/v1alpha1
kind: EdgePolicy
metadata: {name: ours}
spec: {rules: [{name: all}]}
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: cardiology}\n"
GENERATOR = """\
resources: [training.yaml]
configMapGenerator:
  - name: hospitals-app
    files: [app.fab, renamed.txt=notes.txt]
    literals: [colour=blue, quoted="a b"]
    options: {disableNameSuffixHash: true}
"""


def write(directory: Path, **files: str | bytes) -> Path:
    """Write files into the directory; __ in a name stands for a dot."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (directory / name.replace("__", ".")).write_bytes(data)
    return directory


def names(found: list[Any]) -> list[str]:
    return [f"{resource.kind}/{resource.name}" for resource in found]


def test_file_with_many_documents(tmp_path: Path) -> None:
    """Documents come in order; empty ones and Namespaces are passed over."""
    write(tmp_path, all__yaml=f"---\n{NAMESPACE}---\n{TRAINING}---\n# nothing\n---\n{POLICY}...\n")
    assert names(manifests.load_file(tmp_path / "all.yaml")) == [
        "FederatedTraining/hospitals",
        "EdgePolicy/ours",
    ]


def test_directory_without_kustomization(tmp_path: Path) -> None:
    """All *.yaml and *.yml are read by name, nothing else and nothing below; each knows its file."""
    write(tmp_path, b__yaml=TRAINING, a__yml=POLICY, notes__txt="{")
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", c__yaml="{")
    found = manifests.read_directory(tmp_path)
    assert [(loaded.resource.name, loaded.file.name) for loaded in found] == [
        ("ours", "a.yml"),
        ("hospitals", "b.yaml"),
    ]


def test_errors_name_the_file_in_the_directory(tmp_path: Path) -> None:
    """A file is called by its path below the directory that was asked for."""
    write(tmp_path, training__yaml=TRAINING.replace("dataset:", "datset:"))
    with pytest.raises(errors.InvalidManifest) as caught:
        manifests.load_directory(tmp_path)
    assert str(caught.value).splitlines() == [
        'training.yaml: FederatedTraining hospitals: spec.datset: unknown field; did you mean "dataset"?',
        "training.yaml: FederatedTraining hospitals: spec.dataset: is required and missing",
    ]


def test_kustomization(tmp_path: Path) -> None:
    """Resources come in their order, generated ConfigMaps last, text as text and bytes as bytes."""
    write(tmp_path, kustomization__yaml=GENERATOR, training__yaml=TRAINING, other__yaml="{",
          app__fab=b"PK\xff\x00", notes__txt="hello\n")  # fmt: skip
    training, config_map = manifests.load_directory(tmp_path)
    assert training.name == "hospitals"
    assert isinstance(config_map, manifests.ConfigMap)
    assert (config_map.name, config_map.namespace) == ("hospitals-app", "default")
    assert config_map.data == {"renamed.txt": "hello\n", "colour": "blue", "quoted": "a b"}
    assert config_map.binary_data == {"app.fab": b"PK\xff\x00"}
    assert config_map.content("app.fab") == b"PK\xff\x00"
    assert config_map.content("colour") == b"blue"
    assert config_map.content("none") is None


def test_kustomization_of_kustomizations(tmp_path: Path) -> None:
    """A directory among the resources is read in its turn; messages name files from the top."""
    for name, text in (("hub", TRAINING), ("edge", POLICY)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, kustomization__yaml="resources: [it.yaml]", it__yaml=text)
    write(tmp_path, kustomization__yaml="kind: Kustomization\nresources: [hub, edge]")
    assert names(manifests.load_directory(tmp_path)) == ["FederatedTraining/hospitals", "EdgePolicy/ours"]
    write(tmp_path / "edge", it__yaml=POLICY.replace("rules", "ruls"))
    with pytest.raises(
        errors.InvalidManifest, match=r"^edge/it.yaml: EdgePolicy ours: spec.ruls: unknown field"
    ):
        manifests.load_directory(tmp_path)


def test_config_map(tmp_path: Path) -> None:
    """A plain ConfigMap keeps its text and decodes its bytes, and writes itself out the same."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {x: y}\nbinaryData: {z: +/8=}\n"
    write(tmp_path, a__yaml=text)
    (found,) = manifests.load_file(tmp_path / "a.yaml")
    assert isinstance(found, manifests.ConfigMap)
    assert (found.namespace, found.data, found.binary_data) == ("b", {"x": "y"}, {"z": b"\xfb\xff"})
    assert found.manifest()["binaryData"] == {"z": "+/8="}


BAD_FILES = {
    "not YAML": ("a: [1\nb: 2\n", "x.yaml: line 2: is not YAML: expected ',' or ']', but got ':'"),
    "a tab": ("a:\n\tb: 1\n", "x.yaml: line 2: is not YAML: found character '\\t' that cannot start any token"),
    "a list": ("# top\n- a\n", "x.yaml: line 2: is not a mapping of fields, as every object is"),
    "a key twice": ("kind: a\nkind: b\n", 'x.yaml: line 2: is not YAML: the key "kind" stands twice'),
    "a tag": ("a: !!python/object:os.system {}\n",
              "x.yaml: line 1: is not YAML: could not determine a constructor for the tag "
              "'tag:yaml.org,2002:python/object:os.system'"),
    "not text": (b"\xff\xfe\x00", "x.yaml: is not UTF-8 text (byte 0)"),
    "too deep": ("[" * 5000, "x.yaml: is not YAML: nested too deeply"),
    "another kind": (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
        "x.yaml: Deployment d: is of a kind that Hanse does not read; expected FederatedTraining, EdgeCluster, "
        "EdgeDataset, EdgePolicy of hanse.dev/v1alpha1, Namespace or ConfigMap of v1"),
    "a list object": (
        "apiVersion: v1\nkind: List\nitems: []\n",
        "x.yaml: List: is not read; separate objects by lines of three hyphens"),
    "bad base64": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nbinaryData: {x: '?'}\n",
        "x.yaml: ConfigMap a: binaryData.x: must be base64"),
    "ConfigMap with numbers": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: 1}\n",
        'x.yaml: ConfigMap a: data.x: must be text, not 1; write it in quotes: "1"'),
    "ConfigMap misspelt": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {x: 1}\n",
        'x.yaml: ConfigMap a: date: unknown field; did you mean "data"?'),
}  # fmt: skip


@pytest.mark.parametrize(("content", "want"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file(tmp_path: Path, content: str | bytes, want: str) -> None:
    """Each bad file is one sentence with its name, and the line where YAML ends."""
    write(tmp_path, x__yaml=content)
    with pytest.raises(errors.ManifestError) as caught:
        manifests.load_directory(tmp_path)
    assert str(caught.value) == want


def test_missing_paths(tmp_path: Path) -> None:
    """A path that is not there, or of the wrong sort, says so."""
    write(tmp_path, a__yaml=POLICY)
    for call, path, want in (
        (manifests.load_directory, tmp_path / "none", "no such directory"),
        (manifests.load_directory, tmp_path / "a.yaml", "is not a directory"),
        (manifests.load_file, tmp_path / "none.yaml", "no such file"),
        (manifests.load_file, tmp_path, "is a directory, not a file"),
    ):
        with pytest.raises(errors.UnreadableManifest) as caught:
            call(path)
        assert str(caught.value) == f"{path}: {want}"


def test_empty_directory(tmp_path: Path) -> None:
    """A directory without manifests is a mistake, not an empty federation."""
    with pytest.raises(errors.UnreadableManifest) as caught:
        manifests.load_directory(tmp_path)
    assert str(caught.value) == f"{tmp_path}: has no *.yaml or *.yml file"


def test_twins(tmp_path: Path) -> None:
    """The same object in two files is refused."""
    write(tmp_path, a__yaml=POLICY, b__yaml=POLICY)
    with pytest.raises(errors.ManifestError) as caught:
        manifests.load_directory(tmp_path)
    assert str(caught.value) == "b.yaml: EdgePolicy ours: is defined in a.yaml already"


_NOT_READ = "is a feature of kustomize that Hanse does not read"
BAD_KUSTOMIZATIONS = {
    "another feature": (
        "namePrefix: x-\n", f"namePrefix: {_NOT_READ}; run kubectl kustomize first and use what it prints"),
    "misspelt": (
        "resource: []\n",
        f'resource: {_NOT_READ}; run kubectl kustomize first and use what it prints; did you mean "resources"?'),
    "hashed names": (
        "configMapGenerator: [{name: a, literals: [b=c]}]\n",
        "configMapGenerator[0].options.disableNameSuffixHash: must be true, so that the ConfigMap keeps the name that "
        "trainings refer to"),
    "generator feature": (
        "configMapGenerator: [{name: a, envs: [b]}]\n", f"configMapGenerator[0].envs: {_NOT_READ}"),
    "remote resource": (
        "resources: ['https://example.org/x.yaml']\n",
        "resources[0]: https://example.org/x.yaml is not in this directory; Hanse fetches nothing"),
    "missing resource": ("resources: [none.yaml]\n", "resources[0]: there is no file none.yaml"),
    "outside": (
        "resources: [../outside.yaml]\n",
        "resources[0]: ../outside.yaml lies outside the kustomization's directory, which kustomize refuses too"),
    "itself": ("resources: [.]\n", None),
    "missing file": (
        "configMapGenerator: [{name: a, files: [none], options: {disableNameSuffixHash: true}}]\n",
        "configMapGenerator[0].files[0]: there is no file none"),
    "key twice": (
        "configMapGenerator: [{name: a, literals: [a=1, a=2], options: {disableNameSuffixHash: true}}]\n",
        'configMapGenerator[0].literals[1]: the key "a" is given twice'),
    "no literal": (
        "configMapGenerator: [{name: a, literals: [a], options: {disableNameSuffixHash: true}}]\n",
        'configMapGenerator[0].literals[0]: must be key=value, not "a"'),
    "not a list": ("resources: a.yaml\n", "resources: must be a list of text"),
    "not mappings": ("configMapGenerator: [a]\n", "configMapGenerator: must be a list of mappings"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "want"), BAD_KUSTOMIZATIONS.values(), ids=BAD_KUSTOMIZATIONS.keys())
def test_bad_kustomization(tmp_path: Path, text: str, want: str | None) -> None:
    """What Hanse does not do of kustomize is refused by name in one sentence."""
    inner = tmp_path / "inner"
    inner.mkdir()
    write(tmp_path, outside__yaml=POLICY)
    write(inner, kustomization__yaml=text)
    with pytest.raises(errors.UnsupportedKustomization) as caught:
        manifests.load_directory(inner)
    if want is None:
        assert caught.value.message == "the directory includes itself"
    else:
        assert str(caught.value) == f"kustomization.yaml: {want}"


def test_config_map_too_large(tmp_path: Path) -> None:
    """A generated ConfigMap that no API server would take is refused."""
    write(tmp_path, kustomization__yaml=GENERATOR, training__yaml=TRAINING,
          app__fab=b"\xff" * 2**20, notes__txt="hello\n")  # fmt: skip
    with pytest.raises(
        errors.InvalidManifest, match=r"ConfigMap hospitals-app: data: has \d+ bytes; a ConfigMap takes"
    ):
        manifests.load_directory(tmp_path)


@pytest.mark.parametrize(
    ("text", "want"),
    [("20:00", "20:00"), ("2026-01-31", "2026-01-31"), ("1e3", 1000.0), ("1.0", 1.0), ("010", "010"), ("0x1f", 31),
     ("yes", True), ("'1'", "1"), ("~", None), ("1_000", 1000), ("-3", -3), (".5", 0.5), ("1.2.3", "1.2.3")],
)  # fmt: skip
def test_scalars(text: str, want: Any) -> None:
    """Scalars have JSON's types: neither times nor dates nor numbers of base sixty."""
    (document,) = yaml_text.documents(f"x: {text}\n", "x")
    assert document == {"x": want}
    assert type(document["x"]) is type(want)


@given(text=st.text(max_size=60))
def test_any_text_is_documents_or_one_sentence(text: str) -> None:
    """Whatever a file holds, reading it ends in mappings or an UnreadableManifest."""
    sentence = ""
    found: list[dict[str, Any]] = []
    try:
        found = yaml_text.documents(text, "x")
    except errors.UnreadableManifest as error:
        sentence = str(error)
    assert sentence.startswith("x: ") or all(isinstance(document, dict) for document in found)
