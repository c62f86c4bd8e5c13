"""The hospitals' files are UCI's patients, their split is stable, and the report uses the app's own code."""

import csv
import hashlib
import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import yaml

HOSPITALS = pathlib.Path(__file__).resolve().parents[3] / "simulations" / "hospitals"
UCI_ROWS = {"cleveland": (303, 139), "budapest": (294, 106), "zurich": (123, 115), "long-beach": (200, 149)}
WANT_DIGESTS = {
    "cleveland": "c62392cce6a715ef",
    "budapest": "b612d844d8289d69",
    "zurich": "ac8969224163f644",
    "long-beach": "084648b78e5ad264",
}


@pytest.fixture(scope="module")
def report() -> types.ModuleType:
    """The report, loaded from its file as a user runs it."""
    spec = importlib.util.spec_from_file_location("hospitals_report", HOSPITALS / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize("name", UCI_ROWS)
def test_counts_are_ucis(name: str) -> None:
    """Each hospital has as many patients, and as many diseased, as UCI documents."""
    with (HOSPITALS / f"edges/{name}/data/{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), sum(int(row["num"]) > 0 for row in rows)) == UCI_ROWS[name]
    assert len(rows[0]) == 14


def test_files_are_those_that_were_compared() -> None:
    """The files are, to the byte, those that were compared with UCI's."""
    digests = {
        name: hashlib.sha256((HOSPITALS / f"edges/{name}/data/{name}.csv").read_bytes()).hexdigest()[:16]
        for name in UCI_ROWS
    }
    assert digests == WANT_DIGESTS


@pytest.mark.parametrize("name", UCI_ROWS)
def test_manifests_agree_with_the_files(name: str) -> None:
    """An edge's data set mounts the file that its kustomization packs, and declares its rows."""
    edge = HOSPITALS / "edges" / name
    dataset = yaml.safe_load((edge / "dataset.yaml").read_text())["spec"]
    kustomization = yaml.safe_load((edge / "kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    assert dataset["volume"]["configMap"]["name"] == generated["name"]
    assert [(edge / file).is_file() for file in generated["files"]] == [True]
    assert dataset["nodeConfig"]["data"] == "$(MOUNT_PATH)/" + pathlib.Path(generated["files"][0]).name
    assert dataset["declare"]["examples"] == UCI_ROWS[name][0]
    training = yaml.safe_load((HOSPITALS / "training.yaml").read_text())["spec"]
    assert training["dataset"] == dataset["name"]


def test_features_keep_missing_values_visible(report: types.ModuleType) -> None:
    """Zurich's cholesterol is missing for everyone, adds nothing, and is said to be missing."""
    features, _, _ = report.data.load(HOSPITALS / "edges/zurich/data/zurich.csv")
    names = report.data.feature_names()
    assert features.shape == (123, len(names))
    assert np.isfinite(features).all()
    assert not features[:, names.index("chol")].any()
    assert features[:, names.index("chol:missing")].all()


def test_split_is_a_stratified_quarter_and_ignores_order(report: types.ModuleType) -> None:
    """The same rows are held out whatever their order in the file, a quarter of each class."""
    _, labels, keys = report.data.load(HOSPITALS / "edges/cleveland/data/cleveland.csv")
    train, held_out = report.data.split(labels, keys)
    assert not (train & held_out).any()
    for label in (0, 1):
        assert held_out[labels == label].sum() == (labels == label).sum() // 4
    _, reversed_held_out = report.data.split(labels[::-1], keys[::-1])
    assert (reversed_held_out[::-1] == held_out).all()


def test_the_report_is_deterministic_and_says_why(report: types.ModuleType) -> None:
    """Over several splits the federated model beats each hospital's own on all held-out rows together."""
    hospitals = report.read(HOSPITALS / "edges")
    once = report.compare(hospitals)
    assert repr(once) == repr(report.compare(hospitals))
    repeated = [report.compare(hospitals, str(salt)) for salt in range(5)]
    mean = {
        way: {
            metric: np.mean([results[way]["all"][metric] for results in repeated])
            for metric in ("accuracy", "auc")
        }
        for way in once
    }
    for name in UCI_ROWS:
        for metric in ("accuracy", "auc"):
            assert mean["federated"][metric] > mean[f"{name} alone"][metric]
            assert mean["all rows in one place"][metric] > mean["federated"][metric] - 0.03


def test_data_can_be_remade(tmp_path: pathlib.Path) -> None:
    """The script splits by hospital, returns UCI's codes, and refuses a word that it does not know."""
    spec = importlib.util.spec_from_file_location("make_data", HOSPITALS / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    make_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_data)
    header = "id,age,sex,dataset,cp,trestbps,chol,fbs,restecg,thalch,exang,oldpeak,slope,ca,thal,num\n"
    row = "304,28,Male,Cleveland,atypical angina,130,132,FALSE,lv hypertrophy,185,FALSE,0,,,,0\n"
    rows = make_data.rows_by_hospital(header + row)
    first = (HOSPITALS / "edges/budapest/data/budapest.csv").read_text().splitlines()[:2]
    assert make_data.csv_text(rows["budapest"]).splitlines() == first
    assert rows["cleveland"] == []
    with pytest.raises(KeyError):
        make_data.rows_by_hospital(header + row.replace("atypical", "unknown"))
