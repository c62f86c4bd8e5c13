"""What passes over the hub's link, captured by a program in its network namespace, and what it is made of."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import ipaddress
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from simulations.lab.bare import network

_CAPTURE = """
import signal, socket, struct, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
link.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as file:
    print("capturing", flush=True)
    while True:
        frame = link.recv(1 << 17)
        file.write(struct.pack(">I", len(frame)) + frame)
"""

_IPV4, _TCP, _UDP = 0x0800, 6, 17
_SYN = 2


@dataclasses.dataclass(frozen=True)
class Flow:
    """One direction of one connection."""

    source: str
    source_port: int
    target: str
    target_port: int


@contextlib.contextmanager
def captured(namespace: str, interface: str, path: Path) -> Iterator[None]:
    """Write every frame of an interface, in and out, to a file."""
    command = network.inside(namespace, sys.executable, "-c", _CAPTURE, interface, str(path))
    with subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "capturing"
            yield
        finally:
            process.terminate()


def frames(path: Path) -> Iterator[bytes]:
    """The frames of a file of `captured`, whole ones only."""
    content = path.read_bytes()
    at = 0
    while at + 4 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if at + 4 + length <= len(content):
            yield content[at + 4 : at + 4 + length]
        at += 4 + length


def streams(path: Path) -> dict[Flow, bytes]:
    """What TCP carried each way of each connection whose beginning was seen, up to the first gap."""
    pieces: dict[Flow, dict[int, bytes]] = collections.defaultdict(dict)
    first: dict[Flow, int] = {}
    for frame in frames(path):
        found = _segment(frame)
        if found is None:
            continue
        flow, sequence, flags, data = found
        if flags & _SYN:
            first[flow] = (sequence + 1) & 0xFFFFFFFF
        if data and len(data) > len(pieces[flow].get(sequence, b"")):
            pieces[flow][sequence] = data
    return {flow: _joined(pieces[flow], begin) for flow, begin in first.items()}


def talks(path: Path) -> set[tuple[str, int, str, int]]:
    """(source, source port, target, target port) of all TCP and UDP, whenever it began."""
    found = set()
    for frame in frames(path):
        if (part := _transport(frame)) is not None:
            source, target, _, payload = part
            found.add(
                (source, *struct.unpack_from(">H", payload), target, *struct.unpack_from(">2xH", payload))
            )
    return found


def not_tls(stream: bytes) -> str:
    """Say where a stream is anything but TLS records; empty if it is nothing else."""
    at = 0
    while at + 5 <= len(stream):
        kind, major, minor, length = struct.unpack_from(">BBBH", stream, at)
        if kind not in (20, 21, 22, 23) or major != 3 or minor > 4 or length > 16384 + 256:
            return f"byte {at}: {stream[at : at + 40]!r}"
        at += 5 + length
    return ""


def _transport(frame: bytes) -> tuple[str, str, int, bytes] | None:
    if struct.unpack_from(">H", frame, 12)[0] != _IPV4:
        return None
    header = (frame[14] & 15) * 4
    total = struct.unpack_from(">H", frame, 16)[0] or len(frame) - 14  # 0: larger than a packet can be
    protocol = frame[23]
    if protocol not in (_TCP, _UDP):
        return None
    source, target = (str(ipaddress.ip_address(frame[at : at + 4])) for at in (26, 30))
    return source, target, protocol, frame[14 + header : 14 + total]


def _segment(frame: bytes) -> tuple[Flow, int, int, bytes] | None:
    part = _transport(frame)
    if part is None or part[2] != _TCP:
        return None
    source, target, _, payload = part
    source_port, target_port, sequence = struct.unpack_from(">HHI", payload)
    offset, flags = (payload[12] >> 4) * 4, payload[13]
    return Flow(source, source_port, target, target_port), sequence, flags, payload[offset:]


def _joined(pieces: dict[int, bytes], begin: int) -> bytes:
    joined = bytearray()
    for sequence in sorted(pieces, key=lambda one: (one - begin) & 0xFFFFFFFF):
        at = (sequence - begin) & 0xFFFFFFFF
        if at > len(joined):
            break
        joined[at : at + len(pieces[sequence])] = pieces[sequence]  # sent twice, or the next
    return bytes(joined)
