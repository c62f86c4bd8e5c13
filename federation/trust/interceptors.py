"""The guard in front of every servicer: who calls, may he, and out with him the moment he may no longer.

    server = grpc.aio.server(interceptors=[guard := Guard(scope)])
    guard.revoke(Revocations(clusters=frozenset({"zurich"})))     # cuts zurich's open calls at once

The guard decides before the handler runs and before a request is parsed. Handlers read the caller with
`peer_identity(context)` and refuse with `raise Denied(...)`. TLS has verified chain and dates at the
handshake; the guard looks at the dates again at each call, because a connection may outlive its certificate.
A call that is open when its certificate ends goes on.
This module refuses to know what the servicers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from federation.trust import authorisation, calls, certificates
from federation.trust import identity as identities
from federation.wire import denials

_log = structlog.get_logger(__name__)


def peer(context: grpc.aio.ServicerContext) -> certificates.Summary | None:
    """What the caller's verified certificate says; None if there is no certificate.

    Raises: certificates.InvalidCertificate if it names no identity.
    """
    shown = context.auth_context().get("x509_pem_cert")
    if not shown:
        return None
    return _summarise(bytes(shown[0]))


def peer_identity(context: grpc.aio.ServicerContext) -> identities.Identity:
    """Who calls. For handlers behind a `Guard`, where there is always an answer except in Join.

    Raises: Denied(UNKNOWN_IDENTITY).
    """
    try:
        found = peer(context)
    except certificates.InvalidCertificate as error:
        raise denials.Denied(denials.Reason.UNKNOWN_IDENTITY, detail=str(error)) from error
    if found is None:
        raise denials.Denied(denials.Reason.UNKNOWN_IDENTITY, detail="there is no client certificate")
    return found.identity


@functools.lru_cache(maxsize=4096)
def _summarise(pem: bytes) -> certificates.Summary:
    return certificates.summarise(pem)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False, slots=True)
class _OpenCall:
    method: str
    peer: certificates.Summary | None
    cut: asyncio.Future[denials.Denial]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Authorises every call of one server, and keeps a list of the open ones.

    To be used from the server's event loop only.
    """

    def __init__(
        self,
        scope: authorisation.Scope,
        *,
        revocations: authorisation.Revocations = authorisation.NONE_REVOKED,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._scope = scope
        self._revocations = revocations
        self._now = now
        self._open: set[_OpenCall] = set()

    @property
    def revocations(self) -> authorisation.Revocations:
        """Those in force."""
        return self._revocations

    def revoke(self, more: authorisation.Revocations) -> int:
        """Add revocations and cut the open calls that they concern; returns how many."""
        return self.replace_revocations(self._revocations | more)

    def replace_revocations(self, revocations: authorisation.Revocations) -> int:
        """Put the whole list in force and cut the open calls that it concerns; returns how many."""
        self._revocations = revocations
        count = 0
        for call in tuple(self._open):
            if call.peer is not None:
                denied = revocations.find(call.peer.identity, call.peer.serial)
                count += denied is not None and _cut(call, denied)
        return count

    def cut(self, where: Callable[[identities.Identity], bool], denied: denials.Denial) -> int:
        """Cut the open calls of the identities that `where` says, for this reason; returns how many.

        New calls are not refused by this; `revoke` does both.
        """
        return sum(
            _cut(call, denied)
            for call in tuple(self._open)
            if call.peer is not None and where(call.peer.identity)
        )

    def open_calls(self) -> list[tuple[str, identities.Identity | None]]:
        """(method, identity) of each call that is open."""
        return [(call.method, call.peer.identity if call.peer else None) for call in self._open]

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            # A method that another listener serves gets its denial here; only what this one should serve and
            # does not is left to gRPC (UNIMPLEMENTED).
            return grpc.stream_stream_rpc_method_handler(functools.partial(self._refuse, method))
        if handler.request_streaming:
            return self._stream_in(method, handler)
        return self._unary_in(method, handler)

    def _unary_in(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Takes the request as raw bytes, and parses it after the caller was let in."""
        parse = _parser(handler.request_deserializer)

        async def behaviour(raw: bytes, context: grpc.aio.ServicerContext) -> Any:
            called = handler.unary_stream if handler.response_streaming else handler.unary_unary
            return await self._serve(method, context, lambda: _run(called, parse(raw), context))

        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(behaviour, None, handler.response_serializer)

    def _stream_in(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Requests are parsed one by one as the handler asks for them, so none before it runs."""

        async def behaviour(requests: Any, context: grpc.aio.ServicerContext) -> Any:
            called = handler.stream_stream if handler.response_streaming else handler.stream_unary
            return await self._serve(method, context, lambda: _run(called, requests, context), greet=True)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(behaviour, _parser(handler.request_deserializer), handler.response_serializer)

    async def _refuse(self, method: str, _requests: object, context: grpc.aio.ServicerContext) -> None:
        try:
            self._admit(method, context)
        except denials.Denied as denied:
            await _abort(context, denied.denial)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here")

    def _admit(self, method: str, context: grpc.aio.ServicerContext) -> certificates.Summary | None:
        """Let the caller in. Raises: Denied."""
        for version in context.auth_context().get("ssl_tls_version", ()):
            if version != b"TLSv1.3":
                raise denials.Denied(denials.Reason.TLS_TOO_OLD, version=version.decode("ascii", "replace"))
        try:
            caller = peer(context)
        except certificates.InvalidCertificate as error:
            raise denials.Denied(denials.Reason.UNKNOWN_IDENTITY, detail=str(error)) from error
        denied = authorisation.authorise(
            method,
            caller.identity if caller else None,
            self._revocations,
            self._scope,
            serial=caller.serial if caller else None,
        )
        if denied is not None:
            raise denials.Denied(denied)
        if caller is not None and self._now() >= caller.not_after:
            raise denials.Denied(
                denials.Reason.CERTIFICATE_EXPIRED,
                identity=caller.identity.uri,
                expired_at=caller.not_after.isoformat(),
            )
        return caller

    async def _serve(
        self,
        method: str,
        context: grpc.aio.ServicerContext,
        run: Callable[[], Coroutine[Any, Any, Any]],
        *,
        greet: bool = False,
    ) -> Any:
        """Run a handler for a caller that is let in, until it ends or its call is cut.

        greet: send initial metadata first, so that a client that waits for it writes nothing in vain (see
        `calls`). Handlers of client streams send none themselves.
        The handler runs in a task of its own: a call is cut at once, whatever its handler waits for or does
        about being cancelled.
        """
        try:
            caller = self._admit(method, context)
        except denials.Denied as denied:
            await _abort(context, denied.denial)
        if greet:
            await context.send_initial_metadata(((calls.ADMITTED_KEY, "1"),))
        call = _OpenCall(method, caller, asyncio.get_running_loop().create_future())
        work = asyncio.ensure_future(_started(run))
        self._open.add(call)
        try:
            await asyncio.wait({work, call.cut}, return_when=asyncio.FIRST_COMPLETED)
            if call.cut.done():
                work.cancel()
                await _abort(context, call.cut.result())
            try:
                return await work
            except denials.Denied as denied:
                await _abort(context, denied.denial)
            except grpc.aio.AbortError:
                raise
            except Exception:
                _log.exception("rpc_failed", method=method)
                await _abort(context, denials.denial(denials.Reason.INTERNAL, method=method))
        finally:
            self._open.discard(call)
            call.cut.cancel()
            await _end(work)


def _cut(call: _OpenCall, denied: denials.Denial) -> bool:
    if call.cut.done():
        return False
    call.cut.set_result(denied)
    return True


async def _started(run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Call `run` within the task, so that what it raises belongs to the task."""
    return await run()


async def _end(work: asyncio.Future[Any]) -> None:
    """Make sure that the handler is over, whatever it ended with."""
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await work


async def _abort(context: grpc.aio.ServicerContext, denied: denials.Denial) -> NoReturn:
    await context.abort(grpc.StatusCode[denied.status], denied.message, denials.trailing_metadata(denied))
    raise AssertionError("abort always raises")


def _parser(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(raw: bytes) -> Any:
        if deserialise is None:
            return raw
        try:
            return deserialise(raw)
        except DecodeError as error:
            raise denials.Denied(
                denials.Reason.BAD_MESSAGE, detail="not a message of this protocol"
            ) from error

    return parse


async def _run(called: Callable[..., Any], request: Any, context: grpc.aio.ServicerContext) -> Any:
    """Call a handler of either style: one that yields its responses, or one that returns or writes them."""
    outcome = called(request, context)
    if inspect.isasyncgen(outcome):
        async with contextlib.aclosing(outcome):
            async for response in outcome:
                await context.write(response)
        return None
    return await outcome
