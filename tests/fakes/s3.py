"""Starts the S3 server of s3_server.py as a process, and says with which keys it opens."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-s3-server" / "bin" / "python"
BUCKET = "models"


@dataclass(frozen=True)
class Server:
    """One that runs. writer: may do all in BUCKET, and in a bucket that there is not; reader: may read."""

    url: str
    writer: Mapping[str, str]
    reader: Mapping[str, str]

    def secret(self, keys: Mapping[str, str] | None = None, **more: str) -> dict[str, bytes]:
        """A Secret's files: by default the writer's."""
        values = {**(self.writer if keys is None else keys), "AWS_ENDPOINT_URL": self.url, **more}
        return {name: value.encode() for name, value in values.items()}


@contextlib.contextmanager
def serve(*arguments: object, host: str = "127.0.0.1", within: Sequence[str] = ()) -> Iterator[Server]:
    """Run one on a free port; it ends with the block, or with this process.

    within: the beginning of a command line, such as one that enters a network namespace.
    """
    if not PYTHON.exists():
        said = "the S3 server is not installed: python3 tests/tools/environment.py .venv-s3-server s3-server"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    program = str(ROOT / "tests" / "fakes" / "s3_server.py")
    command = [*within, str(PYTHON), program, "--host", host, *map(str, arguments)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**plain, "NO_PROXY": host},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Server(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(10)
