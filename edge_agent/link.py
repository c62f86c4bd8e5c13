"""The one outbound session with the hub: offers, states, heartbeats and log lines up; assignments down.

Both directions are level-triggered: after a reconnect everything of importance is said again, so a cut
loses nothing, and what waits is bounded by what exists. Clients run on while the hub is away. This module
refuses to know what is done about an assignment; it acts on typed denials only, never on text.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import grpc
import grpc.aio

from edge_agent import assignments, backoff, credentials, facts, offers
from federation.telemetry import logs
from federation.trust import credentials as trust
from federation.trust import directory
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc, protocol

_log = logs.get_logger(__name__)

WELCOME_TIMEOUT_SECONDS = 10.0
"""From hello to welcome; a hub that takes longer is treated as away."""

MAXIMUM_WAITING_LINES = 2000
"""Log lines kept for a hub that is away or slow; the oldest go first. The files at the edge have them all."""

LEAVING_PAUSE_SECONDS = 1.0
"""Between two tries to tell a hub that this edge leaves: it is away, or of a version that does not know."""

LINES_PER_MESSAGE = 200
LINE_CHARACTERS = 2000


ENDS_THE_AGENT = frozenset(
    {
        denials.Reason.UNKNOWN_IDENTITY,
        denials.Reason.NOT_AUTHORISED,
        denials.Reason.REVOKED,
        denials.Reason.EXPELLED,
        denials.Reason.CERTIFICATE_EXPIRED,
        denials.Reason.UNSUPPORTED_PROTOCOL,
        denials.Reason.SESSION_REPLACED,
    }
)
"""Why a session may be denied for good: only a person can change it. After another (a hub that
starts, heartbeats that came too late) the next session may well hold."""


class SentAway(Exception):
    """The hub said that this agent must not come back; the text says why and what to do."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the typed reason and the sentence."""
        super().__init__(message)
        self.reason = reason


class _SessionEnded(Exception):
    """The session is over and another may be opened."""


OnAssignments = Callable[[str, tuple[assignments.Assignment, ...]], None]
"""Called with the hub's name and its whole wanted list."""


class Link:
    """Keeps a session open; see `run`."""

    def __init__(
        self,
        channel: trust.ReloadingChannel,
        *,
        agent_version: str,
        rng: random.Random,
        on_assignments: OnAssignments,
        reports: Callable[[], Iterable[facts.Report]],
        hub_address: str = "",
        on_connection: Callable[[bool], None] = lambda _: None,
        leaving: asyncio.Event | None = None,
    ) -> None:
        """Keep the wiring; `reports` gives the last report of each assignment, for a new session.

        `hub_address` is where aggregators are too, if the hub has one address for all. `on_connection` is
        told whenever a session opens and when it is over. Once `leaving` is set the hub is told that this
        edge leaves, and sends the agent away.
        """
        self._channel = channel
        self._agent_version = agent_version
        self._rng = rng
        self._on_assignments = on_assignments
        self._current_reports = reports
        self._hub_address = hub_address
        self._on_connection = on_connection
        self._leaving = asyncio.Event() if leaving is None else leaving
        self._offers: tuple[offers.Offer, ...] = ()
        self._offers_changed = False
        self._reports: dict[str, facts.Report] = {}
        self._lines: collections.deque[tuple[str, str]] = collections.deque(maxlen=MAXIMUM_WAITING_LINES)
        self._something_to_say = asyncio.Event()
        self._turn = asyncio.Lock()
        self.connected = False

    def offer(self, offered: Sequence[offers.Offer]) -> None:
        """Tell the hub, now and at every new session, which data sets are offered."""
        if tuple(offered) != self._offers:
            self._offers, self._offers_changed = tuple(offered), True
            self._something_to_say.set()

    def report(self, report: facts.Report) -> None:
        """Tell the hub where an assignment stands; of several reports that wait, the last one is sent."""
        self._reports.pop(report.uid, None)
        self._reports[report.uid] = report
        self._something_to_say.set()

    def log_lines(self, uid: str, lines: Iterable[str]) -> None:
        """Pass lines of a client's log on to the hub."""
        self._lines.extend((uid, line[:LINE_CHARACTERS]) for line in lines)
        self._something_to_say.set()

    async def run(self) -> None:
        """Hold a session, reconnecting with backoff, until cancelled.

        Raises: SentAway.
        """
        failures = 0
        while True:
            try:
                async with self._session() as session:
                    failures = 0
                    await self._serve(*session)
            except SentAway:
                raise
            except (
                _SessionEnded,
                grpc.aio.AioRpcError,
                TimeoutError,
                directory.CredentialsUnusable,
            ) as error:
                denial = denials.from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else None
                if denial is not None and denial.reason in ENDS_THE_AGENT:
                    raise SentAway(denial.reason.value, denial.message) from error
                failures += 1
                delay = backoff.seconds(failures, self._rng)
                reason = denial.message if denial else credentials.describe(error)
                _log.warning("hub is away", error=reason, attempt=failures, delay_seconds=round(delay, 3))
                await self._pause(delay)
            finally:
                self._connected(False)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; who leaves has little time for it, and no reason to hurry a hub."""
        if self._leaving.is_set():
            await asyncio.sleep(LEAVING_PAUSE_SECONDS)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()

    def _connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self._on_connection(connected)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[grpc.aio.StreamStreamCall, hanse_pb2.AgentWelcome]]:
        async with self._channel.use() as channel:
            stub = hanse_pb2_grpc.ControlStub(channel)
            call = stub.Session()
            try:
                hello = hanse_pb2.AgentHello(
                    protocol=hanse_pb2.ProtocolRange(oldest=protocol.OLDEST, newest=protocol.NEWEST),
                    agent_version=self._agent_version,
                )
                await _write(call, hanse_pb2.AgentMessage(hello=hello))
                async with asyncio.timeout(WELCOME_TIMEOUT_SECONDS):
                    first = await _read(call)
                if first.WhichOneof("body") == "goodbye":
                    _take_leave(first.goodbye)
                if first.WhichOneof("body") != "welcome":
                    raise _SessionEnded("the hub did not begin with a welcome")
                self._connected(True)
                _log.info("session open", protocol=first.welcome.protocol)
                yield call, first.welcome
            finally:
                call.cancel()

    async def _serve(self, call: grpc.aio.StreamStreamCall, welcome: hanse_pb2.AgentWelcome) -> None:
        self._offers_changed = True
        for report in self._current_reports():
            self._reports.setdefault(report.uid, report)
        self._something_to_say.set()
        tasks = {
            asyncio.create_task(self._listen(call, welcome.hub)),
            asyncio.create_task(self._speak(call)),
            asyncio.create_task(self._tell_of_leaving(call)),
            asyncio.create_task(self._beat(call, welcome.heartbeat_interval_seconds)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            # The listener knows best why a session ended: a failed write only says that it did.
            if not any(isinstance(task.exception(), grpc.aio.AioRpcError | SentAway) for task in done):
                await asyncio.wait(tasks, timeout=1)
                done = {task for task in tasks if task.done()}
            for kind in (SentAway, grpc.aio.AioRpcError, Exception):
                for task in done:
                    error = task.exception()
                    if isinstance(error, kind):
                        raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, call: grpc.aio.StreamStreamCall, hub: str) -> None:
        while True:
            message = await _read(call)
            kind = message.WhichOneof("body")
            if kind == "assignments":
                self._on_assignments(hub, _readable(message.assignments, self._hub_address))
            elif kind == "goodbye":
                _take_leave(message.goodbye)

    async def _speak(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            await self._something_to_say.wait()
            self._something_to_say.clear()
            if self._offers_changed:
                self._offers_changed = False
                await self._say(call, hanse_pb2.AgentMessage(datasets=_offered(self._offers)))
            while self._reports:
                uid = next(iter(self._reports))
                await self._say(call, hanse_pb2.AgentMessage(assignment=_status(self._reports.pop(uid))))
            while self._lines:
                await self._say(call, hanse_pb2.AgentMessage(log=self._next_lines()))

    async def _tell_of_leaving(self, call: grpc.aio.StreamStreamCall) -> None:
        await self._leaving.wait()
        await self._say(call, hanse_pb2.AgentMessage(leaving=hanse_pb2.Leaving()))
        await asyncio.Event().wait()  # until the hub has written it down, and ends the session

    async def _beat(self, call: grpc.aio.StreamStreamCall, interval_seconds: float) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(max(interval_seconds, 0.1))
            sequence += 1
            await self._say(call, hanse_pb2.AgentMessage(heartbeat=hanse_pb2.Heartbeat(sequence=sequence)))

    async def _say(self, call: grpc.aio.StreamStreamCall, message: hanse_pb2.AgentMessage) -> None:
        async with self._turn:  # of two messages that are written at once gRPC ends the session
            await _write(call, message)

    def _next_lines(self) -> hanse_pb2.LogLines:
        uid, first = self._lines.popleft()
        lines = [first]
        while self._lines and self._lines[0][0] == uid and len(lines) < LINES_PER_MESSAGE:
            lines.append(self._lines.popleft()[1])
        return hanse_pb2.LogLines(uid=uid, lines=lines)


async def _write(call: grpc.aio.StreamStreamCall, message: hanse_pb2.AgentMessage) -> None:
    try:
        await call.write(message)
    except asyncio.InvalidStateError as error:  # what grpc.aio says of a call that has ended
        raise _SessionEnded("the session ended") from error


async def _read(call: grpc.aio.StreamStreamCall) -> hanse_pb2.HubMessage:
    message = await call.read()
    if message is grpc.aio.EOF:
        raise _SessionEnded("the hub closed the session")
    assert isinstance(message, hanse_pb2.HubMessage)
    return message


def _take_leave(goodbye: hanse_pb2.Goodbye) -> None:
    if not goodbye.may_return:
        raise SentAway(goodbye.reason, goodbye.message or f"the hub closed the session: {goodbye.reason}")
    raise _SessionEnded(goodbye.message or f"the hub closed the session: {goodbye.reason}")


def _readable(message: hanse_pb2.Assignments, hub_address: str) -> tuple[assignments.Assignment, ...]:
    found = []
    for assignment in message.assignments:
        try:
            found.append(assignments.from_wire(assignment, hub_address))
        except assignments.InvalidAssignment as error:
            _log.warning("assignment not usable", error=str(error))
    return tuple(found)


def _offered(offered: Iterable[offers.Offer]) -> hanse_pb2.OfferedDatasets:
    return hanse_pb2.OfferedDatasets(
        datasets=[
            hanse_pb2.OfferedDataset(name=offer.name, examples=offer.examples, labels=offer.labels)
            for offer in offered
        ]
    )


def _status(report: facts.Report) -> hanse_pb2.AssignmentStatus:
    return hanse_pb2.AssignmentStatus(
        uid=report.uid,
        state=f"ASSIGNMENT_STATE_{report.state.value}",
        reason=report.reason,
        message=report.message,
        log_tail=[line[:LINE_CHARACTERS] for line in report.log_tail],
    )
