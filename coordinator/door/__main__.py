"""`python -m coordinator.door DIRECTORY`: what Envoy needs to start, before a coordinator leads."""

import pathlib
import sys

from coordinator.door import files

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m coordinator.door DIRECTORY")
    files.prepare(pathlib.Path(sys.argv[1]))
