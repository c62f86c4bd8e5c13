"""What can be wrong with a simulation before it starts, each as one sentence for a person."""

from __future__ import annotations


class SimulationError(Exception):
    """Something is wrong with the scenario, the options or the machine; nothing was started."""


class SimulationFailed(Exception):
    """Hanse itself could not go on: one of its processes ended or did not start."""
