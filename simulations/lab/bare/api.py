"""What the lab itself asks of a cluster's API server; what Hanse does there is federation/kube's."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from simulations.lab import port
from simulations.lab.bare import pki

_TIMEOUT_SECONDS = 10.0


class Api:
    """One API server, as its administrator, through a forwarded port of this machine."""

    def __init__(self, listen: int, credentials: pki.Pki) -> None:
        self._port = listen
        self._context = ssl.create_default_context(cafile=str(credentials.file("ca.crt")))
        user = pki.ADMINISTRATOR
        self._context.load_cert_chain(credentials.file(f"{user}.crt"), credentials.file(f"{user}.key"))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """The answer's status and document. Raises: OSError when there is no answer."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS, context=self._context
        )
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, body=data, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            document = json.loads(response.read() or b"{}")
            return response.status, document
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"no answer from the API server: {error!r}") from error
        finally:
            connection.close()

    def create(self, collection: str, document: dict[str, Any]) -> None:
        """Create it, unless it is there. Raises: OSError without an answer, port.LabFailed with a refusal."""
        status, answer = self.ask("POST", collection, document)
        if status not in (200, 201, 409):
            raise port.LabFailed(
                f"the API server refuses {document['kind']} {document['metadata']['name']}: "
                f"{answer.get('message', status)}"
            )

    def problem(self, node: str) -> str:
        """What keeps pods from running on the one node; empty when nothing does."""
        try:
            status, found = self.ask("GET", f"/api/v1/nodes/{node}")
            if status != 200:
                return "the node has not registered yet" if status == 404 else f"the API server says {status}"
            for condition in found["status"].get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] != "True":
                    return f"the node is not ready: {condition['message']}"
            if not any(condition["type"] == "Ready" for condition in found["status"].get("conditions", [])):
                return "the node has not said yet whether it is ready"
            if any(
                taint["key"] == "node.kubernetes.io/not-ready" for taint in found["spec"].get("taints", [])
            ):
                return "the node takes no pods yet"
            status, _ = self.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            return "" if status == 200 else "the namespace default has no service account yet"
        except OSError as error:
            return f"the API server does not answer: {error}"

    def version(self) -> str:
        """Such as v1.36.3; empty when there is no answer."""
        try:
            status, found = self.ask("GET", "/version")
        except OSError:
            return ""
        return str(found.get("gitVersion", "")) if status == 200 else ""
