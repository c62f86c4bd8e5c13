"""The keeper of a node: lets pods out once the policy engine can know them, and opens volumes to every user.

Why it exists: a container runs before its pod's address is in the pod's status, and the policy engine lets
pass
what it does not know. The node's rules drop what unknown addresses open (see `files.guard`); this program
adds
the address of each pod that it has seen, a moment after the engine could see it too. When it does not run,
no new pod gets out: that is the safe side.

And directories that the controller manager makes for claims belong to root alone, while the pods that the
lab is for run as other users.

Standard library only; runs on the node:  python -I -S keeper.py SETTINGS.json
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The engine watches the same API server; it gets this long to take in what the keeper has seen.
SETTLE_SECONDS = 0.3
VOLUMES_SECONDS = 0.2
# A watch that says nothing for so long is asked for again.
WATCH_SECONDS = 240


def main() -> None:
    """Keep both until killed."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    threading.Thread(target=open_volumes, args=(Path(settings["volumes"]),), daemon=True).start()
    Keeper(settings).run()


def open_volumes(directory: Path) -> None:
    """Give each volume the mode that lets every user write; a claim is a pod's own, not its user's."""
    seen: set[str] = set()
    while True:
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        for name in names - seen:
            (directory / name).chmod(0o777)
        seen = names
        time.sleep(VOLUMES_SECONDS)


class Keeper:
    """Watches the node's pods and keeps the set of known addresses as they are."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._token = Path(settings["token_file"]).read_text(encoding="utf-8")
        self._context = ssl.create_default_context(cafile=settings["ca_file"])
        self._addresses: dict[str, str] = {}  # by the pod's UID
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        while True:
            try:
                self._watch(self._list())
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"keeper: {error!r}; asking again", flush=True)
                time.sleep(0.5)

    def _list(self) -> str:
        with self._get({}) as response:
            pods = json.load(response)
        with self._lock:
            self._addresses = {
                pod["metadata"]["uid"]: address for pod in pods["items"] if (address := address_of(pod))
            }
        time.sleep(SETTLE_SECONDS)
        with self._lock:
            self._set(set(self._addresses.values()), whole=True)
        return str(pods["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> None:
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        with self._get(query) as response:
            for event in lines(response):
                if event["type"] == "ERROR":
                    raise ValueError(event["object"].get("message", "the watch ended"))
                self._seen(event["type"], event["object"])

    def _seen(self, kind: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        address = None if kind == "DELETED" else address_of(pod)
        with self._lock:
            if address is not None:
                if self._addresses.get(uid) != address:
                    self._addresses[uid] = address
                    threading.Timer(SETTLE_SECONDS, self._admit, (uid, address)).start()
                return
            if self._addresses.pop(uid, None) is not None:
                self._set(self._known & set(self._addresses.values()))

    def _admit(self, uid: str, address: str) -> None:
        with self._lock:
            if self._addresses.get(uid) == address:  # not gone meanwhile
                self._set(self._known | {address})

    def _set(self, wanted: set[str], *, whole: bool = False) -> None:
        """Make the kernel's set so; `whole` also where this program does not know what is in it."""
        name = f"ip {self._settings['table']} {self._settings['set']}"
        commands = [f"flush set {name}"] if whole else []
        gone, new = (set(), wanted) if whole else (self._known - wanted, wanted - self._known)
        commands += [f"delete element {name} {{ {address} }}" for address in sorted(gone)]
        commands += [f"add element {name} {{ {address} }}" for address in sorted(new)]
        if commands:
            subprocess.run([self._settings["nft"], "-f", "-"], input="\n".join(commands).encode(), check=True)
        self._known = set(wanted)

    def _get(self, query: dict[str, str]) -> http.client.HTTPResponse:
        host, port = self._settings["server"]
        connection = http.client.HTTPSConnection(
            host, port, timeout=WATCH_SECONDS + 30, context=self._context
        )
        selector = {"fieldSelector": f"spec.nodeName={self._settings['node']}"}
        connection.request(
            "GET",
            f"/api/v1/pods?{urllib.parse.urlencode({**selector, **query})}",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(f"the API server says {response.status}")
        return response


def address_of(pod: dict[str, Any]) -> str | None:
    """The address that is this pod's own, while it lives."""
    if pod["spec"].get("hostNetwork") or pod["status"].get("phase") in ("Succeeded", "Failed"):
        return None
    address: str | None = pod["status"].get("podIP")
    return address or None


def lines(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The events of a watch, as they come."""
    while line := response.readline():
        yield json.loads(line)


if __name__ == "__main__":
    main()
