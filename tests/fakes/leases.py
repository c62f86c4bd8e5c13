"""One Lease as an API server keeps it: versions, conflicts, and a server that can be away."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from federation.kube import errors


class FakeLeases:
    """What several contenders share. `reach` is one contender's way there, which a test may cut."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.writes: list[str] = []

    def reach(self) -> Reach:
        return Reach(self)


class Reach:
    """`federation.kube.leases.Leases` for one contender."""

    def __init__(self, server: FakeLeases) -> None:
        self.server = server
        self.cut = False
        self.answer_seconds = 0.0
        """How long after a write its answer comes."""
        self.requests = 0

    async def get(self, kind: Any, name: str, namespace: str = "") -> dict[str, Any]:
        self._arrive()
        if self.server.stored is None:
            raise errors.NotFound(f"{kind} {namespace}/{name}")
        return copy.deepcopy(self.server.stored)

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        self._arrive()
        if self.server.stored is not None:
            raise errors.AlreadyExists("lease")
        return await self._write(obj)

    async def replace(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        self._arrive()
        if self.server.stored is None:
            raise errors.NotFound("lease")
        if obj["metadata"]["resourceVersion"] != self.server.stored["metadata"]["resourceVersion"]:
            raise errors.Conflict("lease")
        return await self._write(obj)

    def _arrive(self) -> None:
        self.requests += 1
        if self.cut:
            raise errors.Unreachable("the API server does not answer")

    async def _write(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        self.server.version += 1
        self.server.stored = copy.deepcopy(dict(obj))
        self.server.stored["metadata"] |= {"resourceVersion": str(self.server.version)}
        self.server.writes.append(obj["spec"]["holderIdentity"])
        written = copy.deepcopy(self.server.stored)
        await asyncio.sleep(self.answer_seconds)
        return written
