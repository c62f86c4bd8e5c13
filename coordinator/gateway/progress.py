"""The aggregators' side of the hub: one session each; progress up, roster, rules and stop down.

This module refuses to know what the progress means; it goes into the registry of links, where the planner
finds it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from coordinator.gateway import enrollment, links, sessions, translate
from federation.runtime import failpoints, tasks
from federation.telemetry import logs
from federation.trust import identity as identities
from federation.trust import interceptors
from federation.wire import denials, protocol
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc

_log = logs.get_logger(__name__)

AGGREGATOR = "aggregator"
"""Whose log lines these are; those of clients come as client/CLUSTER."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}")
"""host:port and nothing else: gRPC would also dial unix:PATH and other schemes, at the edge."""

SILENCE_SECONDS = 24 * 3600.0
"""An aggregator reports changes only; its process's end is seen by the runtime, not by silence here."""


class Progress(pb_grpc.ProgressServicer):
    """Serves aggregators on the control listener."""

    def __init__(
        self, registry: links.AggregatorLinks, on_log: Callable[[str, str, Sequence[str]], None]
    ) -> None:
        self._registry = registry
        self._on_log = on_log

    async def Session(self, requests: AsyncIterator[pb.AggregatorMessage], context: Any) -> None:
        """One aggregator, until either side ends it."""
        identity = interceptors.peer_identity(context)
        caller = interceptors.peer(context)
        if not isinstance(identity, identities.AggregatorIdentity):
            raise denials.Denied(denials.Reason.NOT_AUTHORISED, identity=identity.uri, method="Progress")
        issued_at = None if caller is None else enrollment.issued_at(caller)
        entry = self._registry.find(identity.namespace, identity.training, issued_at)
        first = await sessions.hello(requests)
        if first.WhichOneof("body") != "hello" or not _ADDRESS.fullmatch(first.hello.exchange_address):
            raise denials.Denied(
                denials.Reason.BAD_MESSAGE, detail="the first message is no hello with an address"
            )
        version = protocol.agree(first.hello.protocol)
        if isinstance(version, denials.Denial):
            raise denials.Denied(version)
        await context.write(pb.AggregatorDirective(welcome=pb.AggregatorWelcome(protocol=version)))
        # Clients are told the name in its certificate, whatever name it says: they meet it or nobody.
        link = self._registry.open(entry, first.hello.exchange_address, identity.server_name)
        training = f"{identity.namespace}/{identity.training}"
        _log.info("aggregator connected", training=training, address=first.hello.exchange_address)
        try:
            await tasks.together(
                self._read(entry, requests), self._write(entry, link, context), sessions.over(link.ending)
            )
        finally:
            self._registry.close(entry, link)
            _log.info("aggregator disconnected", training=training)

    async def _read(self, entry: Any, requests: AsyncIterator[pb.AggregatorMessage]) -> None:
        while (message := await sessions.receive(requests, SILENCE_SECONDS)) is not None:
            match message.WhichOneof("body"):
                case "report":
                    self._registry.take(entry, *translate.progress(message.report))
                case "finished":
                    failpoints.reach("coordinator.end-heard")
                    self._registry.finish(entry, translate.finished(message.finished))
                case "log":
                    self._on_log(entry.uid, AGGREGATOR, translate.lines(message.log.lines))
                case _:
                    raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="unexpected message in a session")

    async def _write(self, entry: Any, link: links.Link, context: Any) -> None:
        sent: tuple[object, ...] = ((), None, None)
        while True:
            await link.news.wait()
            link.news.clear()
            if link.goodbye is not None:
                return
            wanted = (entry.roster, entry.rules, entry.stop)
            if entry.rules is not None and wanted[1] != sent[1]:
                await context.write(pb.AggregatorDirective(rules=translate.rules(entry.rules)))
            if wanted[0] != sent[0]:
                await context.write(pb.AggregatorDirective(roster=translate.roster(wanted[0])))
            if entry.stop is not None and wanted[2] != sent[2]:
                stop = pb.StopTraining(reason=str(entry.stop.reason), message=entry.stop.message)
                await context.write(pb.AggregatorDirective(stop=stop))
            sent = wanted
