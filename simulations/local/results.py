"""What a simulation leaves: the model and its card, the curve, the logs, and one object that says how it
went.

    RESULTS/model.safetensors  card.json  curve.png (not with -o json)  report.json  logs/NAME.log

Why it exists: `-o json`, the summary on the terminal and the files are three forms of the same result.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simulations.local.errors import SimulationError

MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"
CURVE_FILE = "curve.png"
REPORT_FILE = "report.json"
LOGS = "logs"
_LOCK_FILE = ".hanse-run"


@dataclass
class Outcome:
    """How a simulation ended; its fields are the keys of `-o json`.

    Units: seconds and bytes as the names say; metric values are numbers.
    """

    state: str
    reason: str
    message: str
    rounds: int
    metrics: list[dict[str, Any]]
    clusters: list[dict[str, Any]]
    model: dict[str, Any] | None
    seconds: dict[str, float]
    bytes: dict[str, int]
    phaseSeconds: dict[str, float] = field(default_factory=dict)
    peakMemoryBytes: dict[str, int] = field(default_factory=dict)
    results: str = ""
    training: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the training completed."""
        return self.state == "Completed"

    def to_json(self) -> str:
        """One object, indented, keys in their order; a number that is not finite is null."""
        return json.dumps(_finite(asdict(self)), indent=2, allow_nan=False)


def outcome_of(
    training: str,
    status: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> Outcome:
    """Read an outcome off a training's last status; `metrics` are all of them, status keeps the last ten."""
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    ended: Mapping[str, Any] = next(
        (
            conditions[kind]
            for kind in ("Failed", "Completed", "Stopped", "Suspended")
            if conditions.get(kind, {}).get("status") == "True"
        ),
        {},
    )
    waiting = conditions.get("QuorumReached", {}) if not ended else {}
    model = status.get("model") or None
    transfer = status.get("transfer", {})
    return Outcome(
        state=status.get("phase", "Pending"),
        reason=ended.get("reason", waiting.get("reason", "")),
        message=ended.get("message", waiting.get("message", "")),
        rounds=status.get("round", {}).get("current", 0),
        metrics=[
            {
                "round": entry["round"],
                "phase": entry["phase"],
                "values": {name: float(value) for name, value in entry["values"].items()},
            }
            for entry in metrics
        ],
        clusters=[
            {
                key: cluster.get(key, default)
                for key, default in (
                    ("name", ""),
                    ("state", ""),
                    ("reason", ""),
                    ("message", ""),
                    ("examples", None),
                )
            }
            for cluster in status.get("clusters", [])
        ],
        model={"sha256": model["sha256"], "round": model.get("round"), "path": model["uri"]}
        if model
        else None,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        bytes={"up": transfer.get("bytesUp", 0), "down": transfer.get("bytesDown", 0)},
        phaseSeconds={name: float(value) for name, value in status.get("phaseSeconds", {}).items()},
        training=training,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Make the directory, for one run only.

    Raises: SimulationError if another run uses it, or if it holds anything.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise SimulationError(f"{directory}: is a file; give a directory") from error
    except OSError as error:
        raise SimulationError(
            f"{directory}: cannot be made: {error.strerror}; give another directory"
        ) from error
    lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SimulationError(
                f"{directory}: another simulation runs in it; wait for its end or give another directory"
            ) from error
        try:
            if any((directory / name).exists() for name in (REPORT_FILE, MODEL_FILE, LOGS)):
                raise SimulationError(
                    f"{directory}: holds an earlier run; give another directory or remove it"
                )
            if _holds_anything(directory):
                raise SimulationError(f"{directory}: is not empty; give another directory")
            yield
        finally:
            # Only whoever has the lock may clear up: an empty directory can be another run's that has just
            # begun.
            with contextlib.suppress(OSError):
                if not _holds_anything(directory):
                    (directory / _LOCK_FILE).unlink(missing_ok=True)
                    directory.rmdir()
    finally:
        os.close(lock)


def _holds_anything(directory: Path) -> bool:
    return any(path.name != _LOCK_FILE for path in directory.iterdir())
