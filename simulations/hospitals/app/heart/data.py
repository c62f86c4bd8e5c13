"""A hospital's file as numbers, with missing values kept visible.

The file has UCI's columns; an empty field was not measured. Where UCI's files hold 0 for a cholesterol or
a blood pressure that nobody has alive, it was not measured either.

Nothing is imputed from anywhere. A value that was not measured adds nothing to the sum (its feature is 0,
the centre of its scale), and a second feature says that it was not measured. Zurich has no cholesterol at
all, and this needs no information from Zurich that Zurich does not have.

Scales are fixed clinical thresholds rather than statistics of these patients: no hospital has to tell even
its averages, the model needs nothing beside its weights, and the numbers mean the same everywhere.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np

# column: (centre, step)
SCALES = {
    "age": (55.0, 10.0),  # years; risk about doubles with each ten
    "trestbps": (130.0, 20.0),  # mm Hg at rest; hypertension begins at 130 (ACC/AHA 2017)
    "chol": (200.0, 40.0),  # mg/dl; desirable below 200, high from 240 (NCEP ATP III)
    "thalach": (150.0, 25.0),  # highest heart rate reached; 85 percent of 220 - age at about 45 years
    "oldpeak": (1.0, 1.0),  # mm of ST depression under exercise; 1 mm is a positive test
}
# column: its codes; the first is the reference and has no feature of its own
CODES = {
    "sex": (0, 1),  # female, male
    "cp": (4, 1, 2, 3),  # chest pain: none, typical, atypical angina, other
    "fbs": (0, 1),  # fasting blood sugar above 120 mg/dl
    "restecg": (0, 1, 2),  # normal, ST-T abnormality, hypertrophy
    "exang": (0, 1),  # angina under exercise
    "slope": (1, 2, 3),  # of the ST segment: up, flat, down
    "thal": (3, 6, 7),  # scan: normal, fixed, reversible defect
    "ca": (0, 1, 2, 3),  # large vessels coloured
}
ZERO_IS_MISSING = {"trestbps", "chol"}
# Every hospital measured these in nearly every patient, so "was not measured" would teach nothing.
ALWAYS_MEASURED = {"age", "sex", "cp"}


def feature_names():
    """Name the model's inputs, in their order."""
    names = []
    for column in SCALES:
        names += [column] if column in ALWAYS_MEASURED else [column, f"{column}:missing"]
    for column, codes in CODES.items():
        names += [f"{column}={code}" for code in codes[1:]]
        names += [] if column in ALWAYS_MEASURED else [f"{column}:missing"]
    return names


def load(path):
    """Read a hospital's file.

    Returns features (rows x features, float64), labels (0 healthy, 1 diseased) and a key for each row that
    depends on nothing but its text.
    """
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    features = np.array([_features(row) for row in rows])
    labels = np.array([float(int(row["num"]) > 0) for row in rows])
    keys = ["\x1f".join(row.values()) for row in rows]
    return features, labels, keys


def split(labels, keys, salt="0"):
    """Choose the training and held-out rows: a quarter of the diseased and of the healthy is held out.

    The choice follows from a hash of each row's text, so it is the same on every machine, and equal rows
    fall on the same side.
    """
    hashes = np.array([hashlib.sha256(f"{salt}/{key}".encode()).hexdigest() for key in keys])
    held_out = np.zeros(len(labels), dtype=bool)
    for label in (0.0, 1.0):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) > 1:
            ranked = np.sort(hashes[of_class])
            limit = ranked[max(1, len(of_class) // 4) - 1]
            held_out[of_class] = hashes[of_class] <= limit
    return ~held_out, held_out


def _features(row):
    values = []
    for column, (centre, step) in SCALES.items():
        text = row[column]
        missing = text == "" or (column in ZERO_IS_MISSING and float(text) == 0)
        values.append(0.0 if missing else (float(text) - centre) / step)
        if column not in ALWAYS_MEASURED:
            values.append(float(missing))
    for column, codes in CODES.items():
        text = row[column]
        values += [float(text != "" and int(float(text)) == code) for code in codes[1:]]
        if column not in ALWAYS_MEASURED:
            values.append(float(text == ""))
    return values
