"""EdgeCluster resources as the hub writes them: who joined, who is connected, what is offered.

Several parts of the hub know something of a member; each changes its own part of the status here, and nobody
overwrites another's. This module refuses to know streams and certificates beyond what status shows of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordinator.planning import conditions, membership
from federation.api import cluster, meta, reasons
from federation.store import port

KIND = "EdgeCluster"
Status = dict[str, Any]


def key(name: str) -> port.Key:
    """Return the key of a member."""
    return port.Key(KIND, "", name)


class Members:
    """Reads and writes EdgeCluster resources."""

    def __init__(self, store: port.Store, now: Callable[[], float]) -> None:
        """Keep the store; `now` is unix seconds."""
        self._store = store
        self._now = now

    async def find(self, name: str) -> port.Resource | None:
        """Return a member's resource, or None."""
        try:
            return await self._store.get(key(name))
        except port.NotFoundError:
            return None

    async def ensure(self, name: str, acceptance: cluster.Acceptance) -> port.Resource:
        """Return the member's resource; one that is new, or still Pending and now approved, gets this
        acceptance.
        """
        found = await self.find(name)
        if found is None:
            wanted = cluster.EdgeCluster(
                metadata=meta.ObjectMeta(name=name), spec=cluster.EdgeClusterSpec(acceptance=acceptance)
            )
            return await self._store.create(wanted.manifest())
        if (
            acceptance is cluster.Acceptance.ACCEPTED
            and found["spec"].get("acceptance") == cluster.Acceptance.PENDING
        ):
            found["spec"]["acceptance"] = str(acceptance)
            return await self._store.apply(found)
        return found

    async def update(self, name: str, change: Callable[[Status], None]) -> None:
        """Change a part of the member's status; nothing is written if it stays the same, or the member is
        gone.
        """
        while True:
            found = await self.find(name)
            if found is None:
                return
            status: Status = dict(found.get("status") or {})
            change(status)
            status["summary"] = {**(status.get("summary") or {}), **_summary(found["spec"], status)}
            status["observedGeneration"] = found["metadata"]["generation"]
            try:
                await self._store.patch_status(key(name), status, port.version_of(found))
            except port.ConflictError:
                continue
            except port.NotFoundError:
                pass
            return

    def set_condition(
        self, status: Status, type_: reasons.EdgeClusterCondition, value: bool, reason: str, message: str
    ) -> None:
        """Put one condition into a status that `update` hands out."""
        before = status.get("conditions") or []
        others = [entry for entry in before if entry["type"] != type_]
        merged = conditions.merge(
            before, [conditions.condition(type_, value, reason, message)], None, self._now()
        )
        status["conditions"] = sorted([*others, *merged], key=lambda entry: str(entry["type"]))

    def set_certificate(self, status: Status, judged: membership.Certificate) -> None:
        """Put what a certificate is worth into a status that `update` hands out."""
        self.set_condition(
            status,
            reasons.EdgeClusterCondition.CERTIFICATE_VALID,
            judged.valid,
            judged.reason,
            judged.message,
        )


def _summary(spec: dict[str, Any], status: Status) -> dict[str, str]:
    names = ",".join(entry["name"] for entry in status.get("datasets") or ())
    trainings = len(status.get("trainings") or ())
    return {"datasets": names[:256], "trainings": f"{trainings}/{spec.get('maximumTrainings', 10)}"}
