"""`python -m coordinator --config FILE`."""

import argparse
import pathlib
import sys


def run() -> int:
    """Parse the one argument and serve."""
    parser = argparse.ArgumentParser(prog="python -m coordinator")
    parser.add_argument("--config", type=pathlib.Path, required=True, help="JSON, see coordinator/config.py")
    arguments = parser.parse_args()
    from coordinator import app

    return app.main(arguments.config)


if __name__ == "__main__":
    sys.exit(run())
