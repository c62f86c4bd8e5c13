"""What the measurements were taken on, so that figures of two runs are compared with open eyes."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("flwr", "grpcio", "numpy", "protobuf", "ray")


def describe(now: dt.datetime) -> dict[str, str]:
    """Machine, versions and date, in words; what cannot be found out is left out."""
    found = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "processor": _first(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "load before the run": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "hanse": _version("hanse"),
    }
    found |= {name: _version(name) for name in PACKAGES}
    return {name: value for name, value in found.items() if value}


def _memory() -> str:
    kilobytes = _first(Path("/proc/meminfo"), r"^MemTotal:\s+(\d+) kB$")
    return f"{int(kilobytes) / 1e6:.0f} GB" if kilobytes else ""


def available_bytes() -> int | None:
    """Memory that programs may take without swapping, or None where the system does not say."""
    kilobytes = _first(Path("/proc/meminfo"), r"^MemAvailable:\s+(\d+) kB$")
    return int(kilobytes) * 1024 if kilobytes else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first(path: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1) if found else ""
