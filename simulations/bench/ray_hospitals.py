"""The hospitals on Flower's own simulation engine, in a process of its own: `python ray_hospitals.py
CONFIG.json`.

The app runs unmodified. Started from Python, the engine knows neither its run config nor its data: a client
mod and a ServerApp around the app's own put both into the context. Imports nothing of Hanse.
"""

from __future__ import annotations

import json
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import flwr.simulation
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp, strategy

config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
sys.path.insert(0, config["app"])

DEFAULTS = tomllib.loads(Path(config["app"], "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"][
    "app"
]["config"]
RUN_CONFIG = DEFAULTS | {"num-server-rounds": config["rounds"]}
FILES = sorted(Path(config["edges"]).glob("*/data/*.csv"))


def hospital(message: Message, context: Context, call_next: Any) -> Message:
    """Tell the client where its data are."""
    context.run_config.update(RUN_CONFIG)
    context.node_config["data"] = str(FILES[int(context.node_config["partition-id"])])
    reply: Message = call_next(message, context)
    return reply


def timed(cls: Any) -> None:
    """Write a line for each round, from configure_train to aggregate_evaluate."""
    configure, aggregate = cls.configure_train, cls.aggregate_evaluate

    def configure_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.bench_began = time.perf_counter()
        return configure(self, *args, **kwargs)

    def aggregate_evaluate(self: Any, server_round: int, replies: Any) -> Any:
        metrics = aggregate(self, server_round, replies)
        line = {
            "round": server_round,
            "seconds": time.perf_counter() - self.bench_began,
            "replies": len(replies),
        }
        with Path(config["timings"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return metrics

    cls.configure_train, cls.aggregate_evaluate = configure_train, aggregate_evaluate


def main() -> None:
    """Run the app in the engine."""
    from heart import client_app, server_app  # type: ignore[import-not-found]  # on sys.path

    timed(strategy.FedAvg)
    client_app.app._mods.append(hospital)
    app = ServerApp()

    @app.main()
    def run(grid: Grid, context: Context) -> None:
        context.run_config.update(RUN_CONFIG)
        server_app.app(grid, context)

    flwr.simulation.run_simulation(app, client_app.app, num_supernodes=len(FILES))


if __name__ == "__main__":
    main()
