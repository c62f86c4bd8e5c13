"""Leader election over a coordination.k8s.io Lease, by the rules that client-go's users know.

One of several replicas holds the Lease and renews it; who finds that it was not renewed for its duration
takes it. Whoever cannot renew in time has lost it and must stop before the others may begin. Times by which
another's Lease expires are measured here, from when a change was seen: the clocks of two machines are
never compared. This module refuses to know what a leader does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeVar

import structlog

from federation.kube import errors

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

JITTER_FACTOR = 1.2
"""Contenders wait between one and 2.2 retry periods, so that they do not ask in step."""

RELEASE_SECONDS = 5.0
"""Who ends asks for so long to be let go. Without an answer the others wait for the Lease's end."""


class LeaseLost(Exception):
    """This process leads no longer; it must not act any more."""


class OutOfReach(LeaseLost):
    """It could not renew in time, and nobody is known to have taken its place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """How long a Lease lasts, how long its holder tries to renew it, and how often both sides ask.

    Raises: ValueError unless lease > renew > 1.2 times retry, without which two could lead at once.
    """

    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Check what keeps two from leading at once."""
        if not self.lease_seconds > self.renew_seconds > JITTER_FACTOR * self.retry_seconds > 0:
            raise ValueError(f"{self}: want lease_seconds > renew_seconds > 1.2 times retry_seconds")


class Leases(Protocol):
    """What is asked of the API server; `federation.kube.client.Client` does it."""

    async def get(self, kind: Any, name: str, namespace: str = "") -> dict[str, Any]:
        """Return the object. Raises: NotFound."""
        ...

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object. Raises: AlreadyExists."""
        ...

    async def replace(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Write the object, if its version is the stored one. Raises: Conflict."""
        ...


class Elector:
    """One contender for one Lease."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        identity: str,
        *,
        now: Callable[[], dt.datetime],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
        timing: Timing | None = None,
    ) -> None:
        """Stand for election as `identity`, which no other contender has (a pod's name).

        now: the wall clock, only for people who read the Lease. monotonic: seconds that decide; the event
        loop's clock. jitter: a number from 0 to 1.
        """
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._now = now
        self._monotonic = monotonic
        self._jitter = jitter
        self._timing = timing or Timing()
        self._lease: dict[str, Any] | None = None
        self._seen_at = 0.0
        self._held = False
        self._until = 0.0
        self._answered_at: float | None = None

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last read; empty for nobody."""
        return str((self._lease or {}).get("spec", {}).get("holderIdentity") or "")

    @property
    def held(self) -> bool:
        """Whether this contender leads now; no longer once its time is over, whoever has noticed that yet."""
        return self._held and self._monotonic() < self._until

    def unreachable(self) -> str:
        """Return why this contender could not lead now, or go on leading; empty if it could.

        An API server that does not answer for a moment is no reason: nobody else could lead then.
        """
        if self._answered_at is None:
            return "the API server has not answered yet"
        silent = self._monotonic() - self._answered_at
        if silent <= self._timing.renew_seconds:
            return ""
        return f"the API server has not answered for {silent:.0f} s"

    async def acquire(self, *, unless_taken: bool = False) -> None:
        """Return when this contender leads. The API server may be away meanwhile.

        Raises: LeaseLost, if asked to, once another is seen to hold the Lease.
        """
        while True:
            if await self._attempt_within(self._timing.renew_seconds):
                _log.info("leading", lease=self._name, identity=self.identity)
                return
            if unless_taken:
                self._check_not_taken()
            await asyncio.sleep(self._timing.retry_seconds * (1 + JITTER_FACTOR * self._jitter()))

    async def keep(self) -> NoReturn:
        """Renew until that fails. Raises: LeaseLost; OutOfReach."""
        while True:
            await asyncio.sleep(self._timing.retry_seconds)
            if await self._attempt_within(self._until - self._monotonic()):
                continue
            self._check_not_taken()
            if self._monotonic() >= self._until:
                self._held = False
                raise OutOfReach(f"lease {self._name}: not renewed within {self._timing.renew_seconds:g} s")

    async def release(self) -> None:
        """Give the Lease up, so that another need not wait for its end. Errors are of no matter then."""
        if not self._held:
            return
        self._held = False
        with contextlib.suppress(errors.KubernetesError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                try:
                    await self._write_released()
                except errors.Conflict:  # with a renewal of our own, say, whose answer was not waited for
                    self._observe(await self._leases.get("Lease", self._name, self._namespace))
                    if self.holder == self.identity:
                        await self._write_released()

    @contextlib.asynccontextmanager
    async def leading(self, *, unless_taken: bool = False) -> AsyncIterator[asyncio.Task[NoReturn]]:
        """Acquire the Lease, keep it while the body runs; the given task raises LeaseLost if it is lost.

        At the body's end, however that comes, the Lease is released. unless_taken: see `acquire`.
        """
        await self.acquire(unless_taken=unless_taken)
        keeping = asyncio.create_task(self.keep())
        try:
            yield keeping
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeaseLost):
                await keeping
            await self.release()

    async def lead(self, work: Callable[[], Awaitable[_T]], *, unless_taken: bool = False) -> _T:
        """Acquire the Lease, do `work`, release it. Raises: LeaseLost, when work was cancelled for that.

        unless_taken: see `acquire`.
        """
        async with self.leading(unless_taken=unless_taken) as keeping:
            working = asyncio.ensure_future(work())
            try:
                await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    keeping.result()
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            return working.result()

    async def _write_released(self) -> None:
        assert self._lease is not None
        # One second, as client-go writes it: the holder is empty, so nobody waits for it.
        released = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        self._observe(await self._leases.replace(self._record(released)))

    def _check_not_taken(self) -> None:
        if self.holder not in ("", self.identity):
            self._held = False
            raise LeaseLost(f"lease {self._name}: {self.holder} holds it now")

    async def _attempt_within(self, seconds: float) -> bool:
        """Acquire or renew once; return whether this contender leads now. No answer in time is none."""
        began = self._monotonic()
        success = False
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    success = await self._attempt()
        if success:
            # The server may have counted from when the request was sent.
            self._until = began + self._timing.renew_seconds
        return success

    async def _attempt(self) -> bool:
        try:
            if self._held and self._lease is not None:
                with contextlib.suppress(errors.Conflict, errors.NotFound):
                    # Nobody else writes a Lease that is held: no need to read it first.
                    self._observe(await self._leases.replace(self._renewed(self._lease)))
                    self._answered_at = self._monotonic()
                    return True
            leads = await self._read_and_attempt()
            self._answered_at = self._monotonic()
            return leads
        except errors.Conflict as error:  # another was faster, which is an answer, too
            self._answered_at = self._monotonic()
            _log.info("lease not written", lease=self._name, error=str(error))
            return False
        except errors.KubernetesError as error:
            _log.warning("lease not written", lease=self._name, error=str(error))
            return False

    async def _read_and_attempt(self) -> bool:
        try:
            lease = await self._leases.get("Lease", self._name, self._namespace)
        except errors.NotFound:
            self._observe(await self._leases.create(self._renewed(None)))
            self._held = True
            return True
        if lease != self._lease:
            self._observe(lease)
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._timing.lease_seconds)
        expired = self._monotonic() >= self._seen_at + duration
        if self.holder not in ("", self.identity) and not expired:
            self._held = False
            return False
        self._observe(await self._leases.replace(self._renewed(lease)))
        self._held = True
        return True

    def _observe(self, lease: dict[str, Any]) -> None:
        self._lease = lease
        self._seen_at = self._monotonic()

    def _renewed(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        """Return the Lease as this contender writes it over `lease`."""
        old: dict[str, Any] = (lease or {}).get("spec") or {}
        moment = _micro_time(self._now())
        mine = old.get("holderIdentity") == self.identity
        transitions = int(old.get("leaseTransitions") or 0)
        return self._record(
            {
                **old,
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self._timing.lease_seconds)),
                "acquireTime": old.get("acquireTime", moment) if mine else moment,
                "renewTime": moment,
                "leaseTransitions": transitions + (0 if mine or lease is None else 1),
            },
            lease,
        )

    def _record(self, spec: Mapping[str, Any], lease: dict[str, Any] | None = None) -> dict[str, Any]:
        base = lease if lease is not None else self._lease
        metadata = (base or {}).get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": dict(spec),
        }


def _micro_time(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
