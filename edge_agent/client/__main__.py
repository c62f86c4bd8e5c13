"""`python -m edge_agent.client --config FILE`: the process beside the data."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from federation.runtime import allocator, lifeline
from federation.telemetry import logs
from federation.trust import tls


def main() -> None:
    """Read the configuration, hold the lifeline, serve."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.client", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the client's configuration (JSON)")
    arguments = parser.parse_args()
    lifeline.hold()
    lifeline.end_when_asked()
    allocator.return_large_blocks(arenas=None)  # an app's threads keep theirs
    tls.require()  # before flwr, which imports grpc

    from edge_agent.client import app, config

    settings = config.ClientConfig.model_validate_json(arguments.config.read_bytes())
    logs.configure("client", level=settings.log_level)
    logs.bind(cluster=settings.cluster, training=f"{settings.training_namespace}/{settings.training_name}")
    code = app.run(settings)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that the app started must not keep a finished client alive.
    os._exit(code)


if __name__ == "__main__":
    main()
