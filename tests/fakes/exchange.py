"""One training's exchange, both ends in one process: real gRPC, real mutual TLS, real rounds.

    with Federation(tmp_path) as federation:
        federation.expect("zurich", "geneva")
        federation.client("zurich", answer)     # a function of message and context, on a thread of its own
        federation.client("geneva", answer)
        federation.started()
        replies = federation.grid.send_and_receive(...)

The aggregator's half runs on an event loop in a thread, as in the real process; the test is the ServerApp.
What it leaves out is the hub: tests say who is expected.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import queue
import random
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from federation.trust import authorisation, credentials, interceptors  # isort: skip  # before gRPC
from federation.flower import host, node_ids  # isort: skip  # before flwr
import pytest
from flwr.app import Array, Context, Message
from flwr.supercore.task_identity import TaskIdentity

from coordinator.aggregation import checks, events, rounds
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import exchange, grid, history, verification
from coordinator.aggregator import progress as progress_module
from coordinator.journal import book as journal
from edge_agent.client import answering, keeping, link, worker
from federation.flower import messages as flower_messages
from federation.trust import identity as identities
from federation.wire import codec, frames
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits
from simulations.chaos import proxy as proxies
from tests.fakes import certificates

import grpc.aio  # isort: skip  # after federation.trust

NAMESPACE, NAME = "demo", "hospitals"
DOMAIN = certificates.TRUST_DOMAIN
SERVER_NAME = identities.AggregatorIdentity(DOMAIN, NAMESPACE, NAME).server_name
RUN_ID = node_ids.run_id(NAMESPACE, NAME)
LIMIT_SECONDS = 60
"""No test waits so long unless it has failed."""

LIMITS = checks.Limits(maximum_update_bytes=2**30, maximum_examples=10**6)
RULES = events.RoundRules(link_grace_seconds=3600, start_grace_seconds=3600)

Answer = Callable[[Message, Context], Message]
Result = TypeVar("Result")


def node(cluster: str) -> int:
    """The node id of a cluster."""
    return node_ids.node_id(NAMESPACE, NAME, cluster)


def identity(cluster: str, training: str = NAME) -> identities.ClientIdentity:
    """The identity of a cluster's client."""
    return identities.ClientIdentity(DOMAIN, cluster, NAMESPACE, training, "heart")


@contextlib.contextmanager
def server_process() -> Iterator[None]:
    """Be the process of the ServerApp: Flower keeps the identity of a task process-wide."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    host.prepare_process(RUN_ID, host.SERVER_NODE_ID)
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Be the process of the ServerApp, in every test of a module that names this fixture."""
    with server_process():
        yield


class Client:
    """A client process but for the process: its link, and a thread for the app."""

    def __init__(
        self,
        address: str,
        own: credentials.CredentialDirectory,
        cluster: str,
        answer: Answer | None,
        keep: keeping.Keep | None = None,
    ) -> None:
        self.credentials = own
        self.ended: concurrent.futures.Future[link.End] = concurrent.futures.Future()
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        self.withdrawn = answering.Withdrawn()
        self.link = link.ExchangeLink(
            address,
            SERVER_NAME,
            own,
            on_message=self._inbox.put,
            on_end=self._end,
            on_confirmed=self._confirmed,
            on_withdrawn=self.withdrawn.add,
            rng=random.Random(cluster),
        )
        self._keep = keep
        state = keep.open() if keep is not None else None
        context = host.make_context(RUN_ID, node(cluster), {}, {}, state)
        app = worker.Worker(answer, context)  # type: ignore[arg-type]  # a function is called as an app is
        self._desk = answering.Answering(
            app, keep, send=self.link.send, tell=self.link.tell, withdrawn=self.withdrawn
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Self:
        self.link.start()
        self._thread.start()
        return self

    def end(self) -> link.End:
        """Wait until the conversation is over."""
        return self.ended.result(LIMIT_SECONDS)

    def vanish(self) -> None:
        """End without a word."""
        self.link.stop()
        self.end()

    def join(self) -> None:
        self.link.stop()
        self.link.join()
        self._thread.join()

    def _confirmed(self, transfer_id: str) -> None:
        if self._keep is not None:
            self._keep.confirmed(transfer_id)

    def _end(self, end: link.End) -> None:
        self.ended.set_result(end)
        self._inbox.put(None)

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            self._desk.take(message)


@contextlib.contextmanager
def a_journal(directory: Path | None) -> Iterator[journal.Book]:
    """An empty journal: in this directory, or in one that goes with it."""
    with contextlib.ExitStack() as stack:
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        book = journal.Book(place / "journal", {"training": f"{NAMESPACE}/{NAME}"})
        try:
            yield book
        finally:
            book.close()


def a_grid(
    driver: driver_module.Driver,
    progress: progress_module.Progress,
    book: journal.Book,
    prefix: str = "t",
    **options: Any,
) -> grid.HanseGrid:
    """The Grid of an app that is called by this thread; message ids begin with `prefix`."""
    book.fact("prefix", lambda: prefix)
    book.replace_fact("prefix", prefix)
    past = history.History(book)
    past.attach(driver)
    return grid.HanseGrid(driver, progress, past, run=host.make_run(RUN_ID), **options)


class Federation:
    """A training's aggregator without a hub, and its clients."""

    def __init__(
        self,
        directory: Path,
        *,
        rules: events.RoundRules = RULES,
        limits: checks.Limits = LIMITS,
        message_limits: wire_limits.MessageLimits = wire_limits.DEFAULT_MESSAGE_LIMITS,
        chunk_bytes: int = wire_limits.CHUNK_BYTES,
        progress: progress_module.Progress | None = None,
    ) -> None:
        self.directory = directory
        self._chunk_bytes = chunk_bytes
        self._rules, self._limits, self._message_limits = rules, limits, message_limits
        self.authority = certificates.Authority()
        self.progress = progress or progress_module.Progress()
        self.clients: list[Client] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="exchange-under-test", daemon=True)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(server_process())
        self._thread.start()
        self.call(self._open())
        self.grid = a_grid(self.driver, self.progress, self.book, spool_directory=self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call(self._close())
            for client in self.clients:
                client.join()
        finally:
            self.book.close()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._stack.close()

    # -- the aggregator --------------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open(self) -> None:
        machine = rounds.RoundMachine(f"{NAMESPACE}/{NAME}", self._rules, self._loop.time())
        self.book = self._stack.enter_context(a_journal(self.directory))
        self.driver = driver_module.Driver(
            machine, self.progress, self.book, loop=self._loop, clock=self._loop.time, on_change=self._notify
        )
        self.exchange = exchange.Exchange(
            self.driver,
            self.progress,
            verification.Verifier(self._limits),
            node_of=node,
            run_id=RUN_ID,
            book=self.book,
            message_limits=self._message_limits,
            chunk_bytes=self._chunk_bytes,
        )
        self.guard = interceptors.Guard(authorisation.exchange_scope(DOMAIN, NAMESPACE, NAME))
        aggregator = identities.AggregatorIdentity(DOMAIN, NAMESPACE, NAME)
        self.credentials = self.authority.server(aggregator).directory(self.directory / "aggregator")
        self._server = grpc.aio.server(interceptors=[self.guard])
        self.exchange.add_to_server(self._server)
        self.port = self._server.add_secure_port("127.0.0.1:0", self.credentials.server_credentials())
        self.address = f"127.0.0.1:{self.port}"
        await self._server.start()

    def dies(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let the aggregator end as if it was killed, and open another one on its journal, at another port.

        What it had in memory is lost, and no client is told. Who waits in a call of its Grid is let go.
        meanwhile: what happens between the two.
        """
        book = self.book

        async def end() -> None:
            await self._server.stop(None)
            with book._lock:
                book._unwritten.clear()
                book._waiting.clear()
            self.driver.handle(events.StopAsked("Killed", "the aggregator died"))

        self.call(end())
        book.close()
        meanwhile()
        self.progress = progress_module.Progress()
        self.call(self._open())
        self.grid = a_grid(self.driver, self.progress, self.book, spool_directory=self.directory)

    async def _close(self) -> None:
        self.driver.close("TrainingEnded", "the test is over")
        await self._server.stop(0.5)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:  # gRPC's own; they end by themselves
            await asyncio.wait(left, timeout=1.0)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the aggregator's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_SECONDS)

    def spawn(self, work: Coroutine[Any, Any, Result]) -> concurrent.futures.Future[Result]:
        """Start a coroutine on the aggregator's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def on_loop(self, work: Callable[[], Result]) -> Result:
        """Call a function on the aggregator's event loop."""

        async def run() -> Result:
            return work()

        return self.call(run())

    # -- who takes part --------------------------------------------------------------------------

    def expect(self, *clusters: str) -> None:
        """Put these clusters, and no others, on the roster."""
        members = tuple(events.Member(node(name), name) for name in clusters)

        def tell() -> None:
            self.exchange.expect(clusters)
            self.driver.handle(events.RosterChanged(members, self.driver.now()))

        self.on_loop(tell)

    def handle(self, *happened: events.Event) -> None:
        """Tell the driver what happened."""
        self.on_loop(lambda: self.driver.handle(*happened))

    def client(
        self,
        cluster: str,
        answer: Answer | None = None,
        *,
        address: str | None = None,
        who: identities.ClientIdentity | None = None,
        refuse: tuple[str, str] | None = None,
        keep: keeping.Keep | None = None,
    ) -> Client:
        """Start a client of a cluster."""
        own = self.credentials_of(who or identity(cluster))
        client = Client(address or self.address, own, cluster, answer, keep)
        if refuse is not None:
            client.link.refuse(*refuse)
        self.clients.append(client)
        return client.start()

    def credentials_of(self, who: identities.Identity) -> credentials.CredentialDirectory:
        """Credentials in a directory of their own."""
        return self.authority.issue(who).directory(self.directory / f"client-{next(self._numbers)}")

    def started(self) -> None:
        """Wait until the app may start."""
        self.driver.app_may_start.result(LIMIT_SECONDS)

    # -- what is to be seen ----------------------------------------------------------------------

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; looked at whenever the driver has handled an event."""
        with self._changed:
            assert self._changed.wait_for(holds, LIMIT_SECONDS), self.progress.report()

    def seen(self, cluster: str) -> pb.ClusterProgress:
        """What status says of a cluster."""
        found = [entry for entry in self.progress.report().clusters if entry.cluster == cluster]
        return found[0] if found else pb.ClusterProgress()

    def until_state(self, cluster: str, state: str) -> None:
        """Wait until status shows the cluster in this state."""
        self.until(lambda: self.seen(cluster).state == state)

    def until_lost(self, cluster: str) -> None:
        """Wait until the cluster's client has no session."""
        self.until(lambda: node(cluster) not in self.driver._sessions)

    def after(self, cluster: str, happens: Callable[[], object]) -> None:
        """Let something happen on the event loop that ends a cluster's session; wait for its next one."""
        before = self.driver._sessions[node(cluster)]
        self.on_loop(happens)
        self.until(lambda: self.driver._sessions.get(node(cluster)) not in (None, before))

    @contextlib.asynccontextmanager
    async def session(self, own: credentials.CredentialDirectory) -> Any:
        """A session by hand, on the aggregator's event loop."""
        async with own.channel(self.address, SERVER_NAME) as channel:
            call = channel.stream_stream(
                link.METHOD,
                request_serializer=frames.serialise,
                response_deserializer=frames.aggregator_frames,
            )()
            yield call
            call.cancel()


class Frames:
    """The frames that come on a stream, one by one."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._waiting: list[Any] = []

    async def read(self) -> Any:
        """The next frame, or grpc.aio.EOF."""
        while not self._waiting:
            together = await self._call.read()
            if together is grpc.aio.EOF:
                return together
            self._waiting += together
        return self._waiting.pop(0)


class Driving:
    """A driver on an event loop of its own, with sessions that are lists: no channel, no frames."""

    def __init__(self, rules: events.RoundRules = RULES) -> None:
        self._stack = contextlib.ExitStack()
        self.book = self._stack.enter_context(a_journal(None))
        self.progress = progress_module.Progress()
        self._loop = asyncio.new_event_loop()
        machine = rounds.RoundMachine(f"{NAMESPACE}/{NAME}", rules, 0.0)
        self.clock = 0.0
        self.driver = driver_module.Driver(
            machine,
            self.progress,
            self.book,
            loop=self._loop,
            clock=lambda: self.clock,
            wall_clock=lambda: 0.0,
        )
        self.grid = a_grid(self.driver, self.progress, self.book)
        self.sessions: dict[str, Session] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._identity = server_process()

    def __enter__(self) -> Self:
        self._identity.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(lambda: self.driver.close("TrainingEnded", "the test is over"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._stack.close()
        self._loop.close()
        self._identity.__exit__(None, None, None)

    def on_loop(self, work: Callable[[], Result]) -> Result:
        """Call a function on the driver's event loop."""

        async def run() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(LIMIT_SECONDS)

    def join(self, *clusters: str) -> None:
        """Put clusters on the roster, and connect them."""
        members = tuple(
            events.Member(node(name), name) for name in {**self.sessions, **dict.fromkeys(clusters)}
        )
        self.on_loop(lambda: self.driver.handle(events.RosterChanged(members, self.clock)))
        for cluster in clusters:
            session = self.sessions[cluster] = Session(self, cluster)
            self.on_loop(lambda s=session, c=cluster: self.driver.connected(node(c), s))

    def reply(self, cluster: str, message_id: str, verdict: events.Verdict | None = None) -> None:
        """Let the reply to a message arrive. On the event loop only."""
        sent = self.driver.outgoing(message_id, node(cluster))
        type_ = sent.header.message_type if sent else "train"

        def build(answered: str) -> Message:
            return flower_messages.to_flower(
                pb.MessageHeader(
                    message_id=f"{message_id}.reply", reply_to_message_id=answered, run_id=RUN_ID,
                    source_node_id=node(cluster), destination_node_id=1, message_type=type_, has_content=True,
                    created_at=1.0, ttl_seconds=1.0,
                ),
                lambda entry: Array(entry.dtype, tuple(entry.shape), entry.serialization, b""),
            )  # fmt: skip

        received = driver_module.ReceivedReply(message_id, verdict or events.Accepted(3), build)
        self.driver.replied(node(cluster), received)


class Session:
    """Writes down what the driver asks of it; replies at once unless it is told to hold back."""

    def __init__(self, driving: Driving, cluster: str) -> None:
        self._driving, self._cluster = driving, cluster
        self.sent: list[str] = []
        self.confirmed: list[str] = []
        self.withdrawn: list[str] = []
        self.goodbyes: list[tuple[str, str]] = []
        self.holds_back = False
        self.arrived = threading.Event()
        self.safe = threading.Event()

    def send(self, message_id: str, message: codec.OutgoingMessage) -> None:
        self.sent.append(message_id)
        self.arrived.set()
        if not self.holds_back:
            asyncio.get_running_loop().call_soon(self._driving.reply, self._cluster, message_id)

    def confirm(self, message_id: str) -> None:
        self.confirmed.append(message_id)
        self.safe.set()

    def withdraw(self, message_id: str) -> None:
        self.withdrawn.append(message_id)

    def goodbye(self, reason: str, message: str) -> None:
        self.goodbyes.append((reason, message))


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """A federation without clients yet."""
    with Federation(tmp_path) as made:
        yield made


@pytest.fixture
def proxy(federation: Federation) -> Iterator[proxies.Proxy]:
    """A link to the federation's aggregator that a test can cut and freeze."""
    made = federation.call(proxies.Proxy("127.0.0.1", federation.port).start())
    yield made
    federation.on_loop(made.thaw)
    for client in federation.clients:
        client.join()
    federation.call(made.stop())
