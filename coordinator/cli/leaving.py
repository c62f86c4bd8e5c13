"""How `hanse leave` has the agent tell the hub: it marks the agent's pod, and looks for the receipt.

The agent alone can reach the hub, and no longer once its pod has ended; an agent or a hub that is away holds
up nothing. This module refuses to know what is deleted.
"""

from __future__ import annotations

import dataclasses
import json

from coordinator.cli import edge_manifests, joining, reach
from federation.api import leaving
from federation.kube import client, errors

_CERTIFICATE = "tls.crt"
"""In the agent's Secret once it has joined."""


@dataclasses.dataclass
class Farewell:
    """Whose it is, whether there is a membership to end, and whether the hub knows of the end."""

    cluster: str = "NAME"
    is_member: bool = False
    is_told: bool = False

    def sentence(self) -> str:
        """What the owner is to know of it."""
        if self.is_told:
            return (
                f"the hub knows that {self.cluster} left, and its certificates count no longer; to come back "
                f"join with a token from `hanse token create --cluster {self.cluster}`"
            )
        return (
            f"the hub could not be told: for it {self.cluster} is a member that is away, and trainings may "
            f"wait for it; its operator ends that with `hanse clusters expel {self.cluster}`"
        )

    async def begin(self, api: client.Client, namespace: str) -> None:
        """Look who leaves, and mark the agent's pods; they tell the hub when they are ended."""
        configuration = await reach.absent_is_none(
            api.get("ConfigMap", edge_manifests.CONFIGURATION, namespace)
        )
        self.cluster = _name(configuration) or self.cluster
        identity = await reach.absent_is_none(api.get("Secret", edge_manifests.IDENTITY_SECRET, namespace))
        self.is_member = _CERTIFICATE in ((identity or {}).get("data") or {})
        agents = (await api.list("Pod", namespace, labels=joining.AGENT_PODS)).items
        if not agents:
            return  # a receipt that is there is this membership's: of a `hanse leave` that was cut short
        await reach.gone(api.delete("ConfigMap", leaving.RECEIPT, namespace))
        for agent in agents:
            mark = {"metadata": {"annotations": {leaving.MARK: "true"}}}
            await reach.gone(api.patch("Pod", agent["metadata"]["name"], namespace, mark))

    async def hear(self, api: client.Client, namespace: str) -> None:
        """Look whether the agent, which has ended, told the hub."""
        try:
            await api.get("ConfigMap", leaving.RECEIPT, namespace)
        except errors.NotFound:
            return
        self.is_told = True


def _name(configuration: client.Object | None) -> str:
    try:
        return str(json.loads((configuration or {})["data"]["config.json"])["cluster"])
    except (KeyError, TypeError, ValueError):
        return ""
