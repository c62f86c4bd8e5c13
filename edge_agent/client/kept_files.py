"""The numbered, sealed files of one directory: what `keeping` writes, reads, makes durable and removes.

A file is whole under its name or does not count: sealing shows a torn one, and `replace` gives a name to what
has been written. What the files say, and when they must be durable, is not known here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable

from edge_agent.client import sealing
from federation.runtime import failpoints
from federation.wire import codec, limits
from federation.wire import hanse_pb2 as pb

FRESH = "new"
"""The kind of a file that has no name of its own yet."""

_LIMITS = limits.MessageLimits(header_bytes=2**32, arrays=2**32, array_bytes=2**63, message_bytes=2**63)
"""None: what was sealed here was this process's own, and was held in memory when it was written."""


def name_of(kind: str, number: int) -> str:
    """Return a file's name."""
    return f"{kind}-{number}"


def number_of(name: str) -> int:
    """Return the number in a file's name; 0 where there is none."""
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


class Files:
    """One directory, one key; `sync` makes a file durable, by its descriptor."""

    def __init__(self, directory: pathlib.Path, key: bytes, sync: Callable[[int], None]) -> None:
        """Nothing is touched yet. Raises: ValueError if the key is not sealing.KEY_BYTES long."""
        if len(key) != sealing.KEY_BYTES:
            raise ValueError(
                f"the key of a client's kept work has {len(key)} bytes, want {sealing.KEY_BYTES}"
            )
        self.directory = directory
        self._key, self._sync = key, sync

    def names(self) -> list[str]:
        """Return the names of all files. Raises: OSError."""
        return [path.name for path in self.directory.iterdir()]

    def write(self, name: str, chunks: Iterable[codec.Buffer], *, durable: bool, at: str = "") -> None:
        """Write a file that will be called `name`, under the name `at` for now.

        chunks: of sealing.CHUNK_BYTES each but the last.
        Raises: OSError.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(self.directory / (at or name), flags, 0o600), "wb", buffering=0) as file:
            sealing.write(file, self._key, name, chunks)
            if durable:
                self._make_durable(file.fileno())

    def write_message(self, name: str, message: codec.OutgoingMessage, *, durable: bool) -> None:
        """Write a header and its arrays. Raises: OSError."""
        self.write(name, message.chunks(chunk_bytes=sealing.CHUNK_BYTES), durable=durable)

    def replace(self, name: str, by: str) -> None:
        """Give a file another name, in place of a file that has it. Raises: OSError."""
        (self.directory / by).replace(self.directory / name)

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises: sealing.NotReadable, OSError."""
        return b"".join(sealing.read(self.directory / name, self._key, name))

    def read_message(self, name: str) -> codec.OutgoingMessage:
        """Return what `write_message` wrote. Raises: sealing.NotReadable, codec.WireError, OSError."""
        arrays: dict[bytes, bytearray] = {}

        def sink(entry: pb.ArrayEntry) -> codec.Sink:
            arrays[entry.digest] = into = bytearray()
            return into.extend

        decoder = codec.MessageDecoder(_LIMITS, sink_factory=sink)
        header = pb.MessageHeader()
        for data in sealing.read(self.directory / name, self._key, name):
            for event in decoder.feed(data):
                if isinstance(event, codec.MessageReceived):
                    header = event.header
        decoder.close()
        return codec.OutgoingMessage(header, arrays)

    def sync(self, names: Iterable[str] = ()) -> None:
        """Make files durable, and then the names of all. Raises: OSError."""
        for path in (*(self.directory / name for name in names), self.directory):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._make_durable(descriptor)
            finally:
                os.close(descriptor)

    def _make_durable(self, descriptor: int) -> None:
        failpoints.reach("client.keep-sync")
        self._sync(descriptor)

    def remove(self, *names: str) -> None:
        """Remove files; one that is not there is as good, one that cannot be removed stays."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.directory / name).unlink()
