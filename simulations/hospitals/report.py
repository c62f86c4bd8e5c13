"""Why one would federate: each hospital alone, the federation, and all rows in one place, compared.

    python simulations/hospitals/report.py [--repeats 20]

The report runs on the reader's own machine and may read all four files, which no one in the federation can.
It uses the app's own functions for reading, splitting, training and evaluating; the federation here is
the app's averaging without the network. All models take equally many gradient steps and see training rows
only; all are judged on the same held-out rows. Nothing is random.
"""

import argparse
import pathlib
import sys
import tomllib

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "app"))

from heart import data, model  # noqa: E402 - the app is not an installed package

HOSPITALS = ("cleveland", "budapest", "zurich", "long-beach")
CONFIG = tomllib.loads((HERE / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
ROUNDS, STEPS = CONFIG["num-server-rounds"], CONFIG["local-steps"]
LEARNING_RATE, WEIGHT_DECAY = CONFIG["learning-rate"], CONFIG["weight-decay"]
PREVALENCE = "always answer the commoner"


def read(edges):
    """Read each hospital's rows."""
    return {name: data.load(edges / name / "data" / f"{name}.csv") for name in HOSPITALS}


def divide(hospitals, salt):
    """Split each hospital's rows as its client does; salt "0" is the client's own split."""
    training, held_out = {}, {}
    for name, (features, labels, keys) in hospitals.items():
        train, test = data.split(labels, keys, salt)
        training[name] = (features[train], labels[train])
        held_out[name] = (features[test], labels[test])
    return training, held_out


def together(sets):
    """Put rows of several hospitals in one place."""
    return tuple(np.concatenate(parts) for parts in zip(*sets, strict=True))


def fit(rows):
    """Train on rows in one place, with as many steps as the federation takes."""
    return model.train(model.new(), *rows, ROUNDS * STEPS, LEARNING_RATE, WEIGHT_DECAY)


def federate(training):
    """Average the hospitals' models after every round, weighted by training rows."""
    total = sum(len(labels) for _, labels in training.values())
    current = model.new()
    for _ in range(ROUNDS):
        trained = [
            (model.train(current, features, labels, STEPS, LEARNING_RATE, WEIGHT_DECAY), len(labels) / total)
            for features, labels in training.values()
        ]
        current = {name: sum(part[name] * share for part, share in trained) for name in current}
    return current


def compare(hospitals, salt="0"):
    """Evaluate every way to train on every hospital's held-out rows and on all of them.

    Returns {way: {hospital or "all": {"accuracy": ..., "auc": ..., "loss": ...}}}.
    """
    training, held_out = divide(hospitals, salt)
    models = {f"{name} alone": fit(rows) for name, rows in training.items()}
    models["federated"] = federate(training)
    models["all rows in one place"] = fit(together(training.values()))
    judges = {**held_out, "all": together(held_out.values())}
    results = {
        way: {judge: model.evaluate(fitted, *rows) for judge, rows in judges.items()}
        for way, fitted in models.items()
    }
    results[PREVALENCE] = {
        judge: {"accuracy": float(max(labels.mean(), 1 - labels.mean())), "auc": 0.5, "loss": float("nan")}
        for judge, (_, labels) in judges.items()
    }
    return results


def table(title, repeated):
    """Draw accuracy and AUC, in percent; with more than one split as mean and standard deviation."""
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("trained on")
    for judge in (*HOSPITALS, "all"):
        drawn.add_column(f"{judge}\naccuracy  AUC", justify="right")
    for way in repeated[0]:
        cells = []
        for judge in (*HOSPITALS, "all"):
            texts = []
            for metric in ("accuracy", "auc"):
                values = 100 * np.array([results[way][judge][metric] for results in repeated])
                spread = f"±{values.std():.0f}" if len(repeated) > 1 else ""
                texts.append(f"{values.mean():.0f}{spread}")
            cells.append("  ".join(f"{text:>5}" for text in texts))
        drawn.add_row(way, *cells, style="bold" if way == "federated" else None)
    return drawn


def main():
    """Print the comparison for the client's split, and over more splits."""
    parser = argparse.ArgumentParser(description="Compare the federation with each hospital alone.")
    parser.add_argument("--repeats", type=int, default=20, help="splits to average over; 1 prints one table")
    parser.add_argument("--edges", type=pathlib.Path, default=HERE / "edges", help="where the files are")
    options = parser.parse_args()
    hospitals = read(options.edges)
    console = Console(width=None if sys.stdout.isatty() else 110)
    rows = ", ".join(
        f"{name} {len(labels)} ({labels.mean():.0%} diseased)" for name, (_, labels, _) in hospitals.items()
    )
    console.print(f"Patients: {rows}")
    console.print(table("Held-out rows of the training's own split, percent", [compare(hospitals)]))
    if options.repeats > 1:
        repeated = [compare(hospitals, str(salt)) for salt in range(options.repeats)]
        title = f"Mean and standard deviation over {options.repeats} splits, percent"
        console.print(table(title, repeated))


if __name__ == "__main__":
    main()
