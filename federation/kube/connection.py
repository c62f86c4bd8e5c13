"""One authenticated way to one API server: requests as bytes, credentials that renew themselves, patience.

The library loads kubeconfigs and service accounts and makes the TLS session; this module adds what a program
needs that runs for months: token files are read again, a server that is away for a moment is asked again,
and every request is counted, so that a test can say how few there are. It refuses to know of objects.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import pathlib
import random
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import structlog

from federation.kube import errors

_log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0
"""An API server that restarts is back in 5 to 10 s; a request waits that out instead of failing."""

PATIENT_ATTEMPTS = 5
"""It is said that a request waits when it has been sent so often: some seconds at least."""

SAID_EACH_ATTEMPTS = 16
"""And again after so many: about a minute."""

MAXIMUM_PAUSE_SECONDS = 60.0
"""A server may ask for more (`Retry-After`), which somebody who waits for ever would keep to."""

REQUEST_SECONDS = 60.0
"""The API server itself gives up on a request after 60 s; waiting longer waits for nobody."""

CREDENTIALS_SECONDS = 60.0
"""Token files are read again this often; kubelet renews them ten minutes and more before they expire."""

TURNS_TO_CLOSE = 50
"""Of the event loop: within so many it has let go of a socket that is shut down; it takes about five."""

SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")

BROKEN = (aiohttp.ClientError, TimeoutError, OSError, RuntimeError)
"""What comes of a connection that breaks. A RuntimeError is what aiohttp raises when it was closed between
two reads, or before the request.
"""

Query = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """One way to one API server, for a library that connects by itself: files of PEM, and a token."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: str | None = dataclasses.field(repr=False)


class Connection:
    """Requests to one API server. `requests` counts them by verb, repeated ones included."""

    def __init__(
        self,
        configuration: Any,
        token_file: pathlib.Path | None,
        *,
        user_agent: str,
        rng: random.Random,
        patience_seconds: float,
        allowed: Callable[[], bool],
    ) -> None:
        """Use `open` instead."""
        # Cluster CAs made by common tools lack extensions that Python 3.13 has begun to insist on.
        configuration.disable_strict_ssl_verification = True
        self._configuration = configuration
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._rest = _rest_client(configuration, self._new_socket)
        self._token_file = token_file
        self._token_read = -CREDENTIALS_SECONDS
        self._user_agent = user_agent
        self._rng = rng
        self.patience_seconds = patience_seconds
        self._allowed = allowed
        self._closed = False
        self.requests: collections.Counter[str] = collections.Counter()

    @classmethod
    async def open(
        cls,
        kubeconfig: pathlib.Path | None = None,
        context: str | None = None,
        *,
        user_agent: str = "hanse",
        rng: random.Random | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        allowed: Callable[[], bool] = lambda: True,
    ) -> Self:
        """Read `kubeconfig`, or without one what a pod has of its service account; sends nothing yet.

        allowed: see `federation.kube.client.Client.connect`.
        Raises: NotConfigured.
        """
        configuration, token_file = await _configuration(kubeconfig, context)
        # A proxy from the environment is for the world outside; kubeconfigs name theirs.
        configuration.client_session_kwargs = {"trust_env": kubeconfig is not None}
        return cls(
            configuration,
            token_file,
            user_agent=user_agent,
            rng=rng or random.Random(),  # noqa: S311 - jitter
            patience_seconds=patience_seconds,
            allowed=allowed,
        )

    @property
    def server(self) -> str:
        """Where the API server is, as the kubeconfig says it."""
        return str(self._configuration.host)

    async def close(self) -> None:
        """Close the connections; who asks for more is told that the server is out of reach."""
        self._closed = True
        await self._rest.close()
        # A request that was cancelled leaves a connection that says goodbye and waits for the answer.
        for used in self._sockets:
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)
        for _ in range(TURNS_TO_CLOSE):
            if all(used.fileno() < 0 for used in self._sockets):
                break
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        what: str,
        verb: str,
        body: Any = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,
        patience_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, again while the server is away, and give the answer, whose body is not read yet.

        Raises: the error that the server's refusal means; Unreachable.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        give_up = time.monotonic() + patience
        renewed = False
        for attempt in itertools.count():
            pause = min(0.2 * 2.0 ** min(attempt, 8), 5.0) * (0.5 + self._rng.random())
            if self._closed or not self._allowed():
                raise errors.Unreachable(f"{what}: not asked any more")
            try:
                response = await self._send(method, path, query, verb, body, content_type, timeout)
                refusal = b"" if response.status < 400 else await response.read()
            except BROKEN as error:
                failure: errors.KubernetesError = self._unreachable(what, error)
                again = _was_not_sent(error) or (method != "POST" and not isinstance(error, ssl.SSLError))
            else:
                if response.status < 400:
                    try:
                        yield response
                    finally:
                        _let_go(response)
                    return
                failure = errors.from_answer(response.status, refusal, what)
                again = response.status == 429 or (
                    method != "POST" and response.status in (500, 502, 503, 504)
                    and isinstance(failure, errors.Unreachable)
                )  # fmt: skip
                with contextlib.suppress(ValueError):
                    wanted = float(response.headers.get("Retry-After", ""))
                    pause = max(pause, min(wanted, MAXIMUM_PAUSE_SECONDS))
                if response.status == 401 and not renewed:
                    renewed, again, pause = True, await self._read_token(force=True), 0.0
            if not again or time.monotonic() + pause > give_up:
                raise failure
            if attempt % SAID_EACH_ATTEMPTS == PATIENT_ATTEMPTS:
                _log.warning("the API server is waited for", error=str(failure))
            await asyncio.sleep(pause)

    async def websocket(
        self, path: str, query: Query, protocol: str
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Open a websocket; the caller enters what is returned."""
        self.requests["connect"] += 1
        session = self._session()
        url = f"{self._configuration.host}{path}?{urlencode(query)}".replace("http", "ws", 1)
        headers = {**await self._headers(), "Accept": "*/*"}  # what comes is no JSON, and it is strict there
        return session.ws_connect(
            url, protocols=(protocol,), headers=headers, heartbeat=30, max_msg_size=2**25
        )

    def _new_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    def _session(self) -> aiohttp.ClientSession:
        if self._rest.pool_manager is None:
            self._rest.pool_manager = self._rest._create_pool_manager()
        session: aiohttp.ClientSession = self._rest.pool_manager
        return session

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        verb: str,
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout | None,
    ) -> aiohttp.ClientResponse:
        self.requests[verb] += 1
        url = f"{self._configuration.host}{path}"
        headers = {**await self._headers(), "Content-Type": content_type}
        answer = await self._rest.request(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            headers=headers,
            body=body,
            _request_timeout=timeout or aiohttp.ClientTimeout(total=REQUEST_SECONDS),
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _headers(self) -> Mapping[str, str]:
        await self._read_token()
        token = self._configuration.api_key.get("BearerToken")
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        return {**headers, "Authorization": token} if token else headers

    async def _read_token(self, force: bool = False) -> bool:
        """Read the token file again if that is due; return whether there is one."""
        if self._token_file is None:
            return False
        if force or time.monotonic() - self._token_read >= CREDENTIALS_SECONDS:
            with contextlib.suppress(OSError):  # while it is being replaced the old one serves
                token = (await asyncio.to_thread(self._token_file.read_text)).strip()
                self._configuration.api_key["BearerToken"] = f"Bearer {token}"
                self._token_read = time.monotonic()
        return True

    def _unreachable(self, what: str, error: BaseException) -> errors.Unreachable:
        cause = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return errors.Unreachable(f"{what}: the API server at {self.server} does not answer: {cause}")


def _rest_client(configuration: Any, new_socket: aiohttp.SocketFactoryType) -> Any:
    """Return the library's own client, with sockets from this factory."""
    from kubernetes.aio.client import rest  # half a second; only who connects pays it

    class Client(rest.RESTClientObject):
        def _create_connector(self) -> aiohttp.TCPConnector:
            return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=new_socket)

    return Client(configuration)


def _let_go(response: aiohttp.ClientResponse) -> None:
    """Give the connection back, or end it at once if a watch or a log is left in the middle.

    A TLS connection that is closed politely waits for the other side, and outlives its event loop.
    """
    if not response.content.at_eof() and response.connection is not None:
        transport = response.connection.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
    response.release()


def _was_not_sent(error: BaseException) -> bool:
    """Whether the connection failed before a byte of the request; a wrong certificate stays wrong."""
    return isinstance(error, aiohttp.ClientConnectorError) and not isinstance(
        error, aiohttp.ClientConnectorCertificateError
    )


async def access(kubeconfig: pathlib.Path | None = None) -> Access:
    """Return the way that `Connection.open` would take, with the token that is in force now.

    Raises: NotConfigured.
    """
    configuration, token_file = await _configuration(kubeconfig, None)
    if token_file is None:
        token = str(configuration.api_key.get("BearerToken") or "").removeprefix("Bearer ")
    else:
        try:
            token = (await asyncio.to_thread(token_file.read_text)).strip()
        except OSError as error:
            raise errors.NotConfigured(f"token file {token_file}: {error.strerror}") from error
    return Access(
        str(configuration.host),
        configuration.ssl_ca_cert,
        configuration.cert_file,
        configuration.key_file,
        token or None,
    )


async def _configuration(
    kubeconfig: pathlib.Path | None, context: str | None
) -> tuple[Any, pathlib.Path | None]:
    """Return the library's configuration and the token file that is to be read again.

    Raises: NotConfigured.
    """
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    token_file: pathlib.Path | None = None
    try:
        if kubeconfig is not None:
            if not await asyncio.to_thread(kubeconfig.is_file):
                raise errors.NotConfigured(f"kubeconfig {kubeconfig}: there is no such file")
            loader = await config.load_kube_config(
                config_file=str(kubeconfig),
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
            token_file = await asyncio.to_thread(_token_file, kubeconfig, context)
            del loader
        else:
            config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
            token_file = SERVICE_ACCOUNT / "token"
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "this pod's service account"
        raise errors.NotConfigured(f"{where}: {error}") from error
    return configuration, token_file


def _token_file(kubeconfig: pathlib.Path, context: str | None) -> pathlib.Path | None:
    """Return the token file that a kubeconfig names for a context; the library reads it once only."""
    import yaml

    content = yaml.safe_load(kubeconfig.read_text())
    name = context or content.get("current-context")
    user = next((c["context"].get("user") for c in content.get("contexts") or () if c["name"] == name), None)
    for entry in content.get("users") or ():
        if entry["name"] == user and (entry.get("user") or {}).get("tokenFile"):
            return kubeconfig.parent / str(entry["user"]["tokenFile"])
    return None
