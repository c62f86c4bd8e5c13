"""What Hanse's results are compared with: the conformance apps, run by a host of a few hundred lines.

The host (reference_host.py) is a Grid in memory with one process per node. Every message and Context goes
through Flower's own serialisation, as on its SuperLink, and replies are ordered by node id, which Flower
leaves to chance and Hanse promises. So a result that Hanse gives for the same app, node ids and configuration
must be equal to the last bit. Flower's own simulation engine is not used here: Ray is heavy, and its replies
come in the order of arrival.

Nothing here knows of Hanse, and nothing imports flwr: the host runs in a process of its own.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

APPS = pathlib.Path(__file__).parent / "apps"
LIMIT_SECONDS = 180

STRATEGIES = (
    "FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi", "FedMedian", "FedTrimmedAvg", "Krum",
    "MultiKrum", "Bulyan", "QFedAvg", "FedXgbBagging", "FedXgbCyclic",
    "DifferentialPrivacyServerSideFixedClipping", "DifferentialPrivacyClientSideFixedClipping",
    "DifferentialPrivacyServerSideAdaptiveClipping", "DifferentialPrivacyClientSideAdaptiveClipping",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """A node of a run: its id, its node_config, and after how many calls of get_node_ids it is there."""

    node_id: int
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    joins_after_calls: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """One conformance run: an app, its nodes' configs, overrides, and how late some nodes join.

    `strategy` (name, rounds, parameters) is set for an app without a ServerApp. `late` counts the nodes, from
    the end of the list, that join when the app runs already.
    """

    name: str
    app: str
    nodes: int = 4
    run_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    strategy: Mapping[str, Any] | None = None
    late: int = 0

    @property
    def directory(self) -> pathlib.Path:
        return APPS / self.app

    def node_configs(self) -> list[dict[str, Any]]:
        """Return what each node's owner declares."""
        return [{"site": site, "name": f"site-{site}", "scale": 0.5 + site} for site in range(self.nodes)]


CASES = (
    *(Case(f"strategy-{name}", "strategies", 7, {"strategy": name}) for name in STRATEGIES),
    Case("actions", "actions"),
    Case("push-pull", "push_pull"),
    Case("growing", "growing", late=2),
    Case("mods", "mods"),
    Case("state", "state"),
    Case("configuration", "configuration"),
    Case(
        "configuration-overrides",
        "configuration",
        run_config={"rate": 1, "model.name": "other", "model.layers.hidden": 3, "on": False},
    ),
    Case("lifespan", "lifespan"),
    Case("errors", "errors"),
    Case("ttl", "ttl", 2),
    Case("iterables", "iterables"),
    Case("legacy-numpy", "legacy_numpy"),
    Case("legacy-client", "legacy_client"),
    Case("legacy-cid", "legacy_cid"),
    Case("privacy", "privacy"),
    Case("secure-aggregation", "secure_aggregation"),
    Case("override-start", "override_start"),
    Case("fedbuff", "fedbuff"),
    Case(
        "client-only",
        "client_only",
        strategy={
            "name": "FedAvg",
            "rounds": 3,
            "parameters": {"fraction-evaluate": 1.0, "initial-arrays": "client_app:initial_arrays"},
        },
    ),
    Case("files", "files"),
    Case("large", "large", 2),
    Case("threads", "threads"),
    Case("records", "records", 2),
)


def run_reference(
    app_directory: pathlib.Path,
    nodes: Sequence[NodeSpec],
    run_config: Mapping[str, Any],
    work: pathlib.Path,
    strategy: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Run an app in a process of its own; return the ServerApp's working directory with what it wrote.

    `run_config` is the complete one, flat: defaults with overrides. Node i works in `work/node-<i>`, where
    its output is in `output.log`; the ServerApp's output is in `work/server/output.log`.

    Raises: RuntimeError with the last lines of the ServerApp's output if it fails or takes too long.
    """
    work.mkdir(parents=True, exist_ok=True)
    spec = {
        "app": str(app_directory.resolve()),
        "work": str(work.resolve()),
        "nodes": [dataclasses.asdict(node) for node in nodes],
        "run_config": dict(run_config),
        "strategy": dict(strategy) if strategy else None,
    }
    (work / "spec.json").write_text(json.dumps(spec))
    server = work / "server"
    server.mkdir()
    with (server / "output.log").open("w") as output:
        host = subprocess.Popen(
            [
                sys.executable,
                str(pathlib.Path(__file__).with_name("reference_host.py")),
                str(work / "spec.json"),
            ],
            env={
                **os.environ,
                "PYTHONDONTWRITEBYTECODE": "1",
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_HOME": str(work),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | None = host.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()
            code = None
    if code != 0:
        tail = "\n".join((server / "output.log").read_text().splitlines()[-20:])
        raise RuntimeError(f"reference run of {app_directory.name} ended with {code}:\n{tail}")
    return server


def read_result(directory: pathlib.Path) -> dict[str, Any]:
    """Return what an app wrote to its working directory, in a form that compares to the last bit.

    `result.json` is under "json", with numbers as written; each array of `result.npz` is under "arrays" as
    (dtype, shape, bytes).
    """
    result: dict[str, Any] = {}
    if (directory / "result.json").is_file():
        text = (directory / "result.json").read_text()
        result["json"] = json.loads(text, parse_float=str, parse_constant=str)
    if (directory / "result.npz").is_file():
        with np.load(directory / "result.npz", allow_pickle=False) as stored:
            result["arrays"] = {
                name: (stored[name].dtype.str, stored[name].shape, stored[name].tobytes())
                for name in stored.files
            }
    return result
