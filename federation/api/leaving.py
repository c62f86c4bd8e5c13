"""What `hanse leave` and the agent leave for each other in the edge's namespace.

Why it exists: the command ends the agent, and the agent alone can reach the hub. The mark is the pod's own,
so that a pod which ends for another reason (a restart, a drained node) takes no edge out of its federation.
This module refuses to know who reads it.
"""

from __future__ import annotations

from typing import Final

from federation.api import meta

MARK: Final = f"{meta.GROUP}/leaving"
"""Annotation of the agent's pod: when it is told to end, its edge leaves the federation."""

RECEIPT: Final = "hanse-agent-left"
"""A ConfigMap that the agent makes when the hub knows."""
