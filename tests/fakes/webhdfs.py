"""A server that speaks WebHDFS over a directory: the part of Hadoop's interface that fsspec's class uses.

A storage that is neither this machine's disk nor S3, wants a user and a password, and has directories that
must be made first. fsspec's class for it needs no package that Hanse has not.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

USER, PASSWORD = "hanse", "open-sesame"
_PREFIX = "/webhdfs/v1"


@dataclass(frozen=True)
class Server:
    """One that runs. root: the directory that it serves."""

    address: str
    root: pathlib.Path

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"webhdfs://{self.address}/models"

    def secret(self, password: str = PASSWORD) -> dict[str, bytes]:
        """A Secret's files."""
        return {"options.json": json.dumps({"user": USER, "password": password}).encode()}


def nothing(_: pathlib.Path) -> bool:
    """Of a server that is always there."""
    return False


@contextlib.contextmanager
def serve(root: pathlib.Path, away: Callable[[pathlib.Path], bool] = nothing) -> Iterator[Server]:
    """Run one on a free port of loopback, in a thread; away: whether it fails as this file is to be made."""

    class Bound(_Handler):
        directory = root
        is_away = staticmethod(away)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Server(f"127.0.0.1:{server.server_address[1]}", root)
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    directory: pathlib.Path
    is_away: Callable[[pathlib.Path], bool]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query, path = self._asked()
        if query is None:
            return
        if not path.exists():
            self._refuse(404, "FileNotFoundException", f"File does not exist: {path.name}")
        elif query["op"] == "GETFILESTATUS":
            self._answer({"FileStatus": _status(path, "")})
        elif query["op"] == "LISTSTATUS":
            found = [_status(each, each.name) for each in sorted(path.iterdir())]
            self._answer({"FileStatuses": {"FileStatus": found}})
        else:
            start = int(query.get("offset", 0))
            self._send(path.read_bytes()[start : start + int(query.get("length", 2**62))])

    def do_PUT(self) -> None:
        query, path = self._asked()
        if query is None:
            return
        if query["op"] == "MKDIRS":
            path.mkdir(parents=True, exist_ok=True)
            self._answer({"boolean": True})
        elif not path.parent.is_dir():
            self._refuse(403, "AccessControlException", "no such directory")
        elif self._sent_on(query):
            if self.is_away(path):
                self._refuse(503, "RetriableException", "the NameNode is in safe mode")
                return
            path.write_bytes(b"")
            self._send(b"", 201)

    def do_POST(self) -> None:
        query, path = self._asked()
        if query is not None and self._sent_on(query):
            with path.open("ab") as file:
                file.write(self._body)
            self._send(b"")

    def do_DELETE(self) -> None:
        query, path = self._asked()
        if query is None:
            return
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._answer({"boolean": True})

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _asked(self) -> tuple[dict[str, str] | None, pathlib.Path]:
        """What is asked of which file; None if it was refused already."""
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        path = self.directory / urllib.parse.unquote(parts.path).removeprefix(_PREFIX).strip("/")
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self._refuse(401, "SecurityException", f"{self.headers.get('Authorization')} opens nothing")
            return None, path
        return dict(urllib.parse.parse_qsl(parts.query)), path

    def _sent_on(self, query: Mapping[str, str]) -> bool:
        """Whether this is the second request: the first one is sent to the node that keeps the data."""
        if "node" in query:
            return True
        host, port = self.server.server_address[:2]
        self._send(b"", 307, {"Location": f"http://{host!s}:{port}{self.path}&node=1"})
        return False

    def _answer(self, content: object) -> None:
        self._send(json.dumps(content).encode())

    def _refuse(self, status: int, exception: str, message: str) -> None:
        said = {"RemoteException": {"exception": exception, "message": message}}
        self._send(json.dumps(said).encode(), status)

    def _send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _status(path: pathlib.Path, name: str) -> dict[str, object]:
    kind, length = ("DIRECTORY", 0) if path.is_dir() else ("FILE", path.stat().st_size)
    return {"pathSuffix": name, "type": kind, "length": length}
