"""What passes an edge's link, as its router counts it: so a test knows that a transfer is in its middle."""

from __future__ import annotations

import json
import subprocess
from typing import Literal

from simulations.lab.bare import layout, network

Direction = Literal["down", "up"]

_COUNTERS: dict[Direction, str] = {"down": "rx", "up": "tx"}


def passed(edge: layout.Cluster, direction: Direction) -> int:
    """Bytes that have come from the outside to an edge's router (down), or left it for the outside (up)."""
    argv = ["ip", "-n", edge.router, "-s", "-j", "link", "show", network.ROUTER_WAN]
    links = json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)
    return int(links[0]["stats64"][_COUNTERS[direction]]["bytes"])
