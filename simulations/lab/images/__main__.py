"""`python -m simulations.lab.images build [TARGET…]`: this checkout's images, as archives."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from simulations.lab import images


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is asked for, and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m simulations.lab.images", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build images; without a name, all but those with torch")
    build.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(images.TARGETS))
    build.add_argument("-o", "--output", choices=("text", "json"), default="text")
    build.add_argument("--refresh", action="store_true", help="fetch the Debian packages again")
    options = parser.parse_args(arguments)

    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:5.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        built = images.build(options.targets or images.DEFAULT, say, refresh=options.refresh)
        say("writing the archive")
        archive = images.together(built)
    except (images.ImagesMissing, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 1
    if options.output == "json":
        print(json.dumps(images.document(built, archive), indent=2))
    else:
        for each in built:
            print(f"{each.name}  {each.size_bytes / 2**20:.0f} MiB")
        print(f"in one archive: {archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
