"""`python -m coordinator.aggregator --config FILE`: the process of one training."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from federation.runtime import allocator, lifeline
from federation.telemetry import logs
from federation.trust import tls


def main() -> None:
    """Read the configuration, hold the lifeline, run the training."""
    parser = argparse.ArgumentParser(prog="python -m coordinator.aggregator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the aggregator's configuration (JSON)")
    arguments = parser.parse_args()
    lifeline.hold()
    lifeline.end_when_asked()  # the journal has what must not be lost
    allocator.return_large_blocks()
    tls.require()  # before flwr, which imports grpc

    from coordinator.aggregator import app, config

    settings = config.AggregatorConfig.read(arguments.config.read_bytes())
    logs.configure("aggregator", level=settings.log_level)
    logs.bind(training=f"{settings.namespace}/{settings.name}")
    code = app.Aggregator(settings).run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that the app started must not keep a finished training alive.
    os._exit(code)


if __name__ == "__main__":
    main()
