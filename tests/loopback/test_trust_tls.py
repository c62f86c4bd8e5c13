"""TLS 1.3 and nothing older, shown with both outcomes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation.trust import tls
from federation.trust.identity import ClusterIdentity, CoordinatorIdentity
from tests.fakes import certificates as fakes

# A process of its own, because gRPC reads its cipher suites once. It serves mutual TLS and lets Python's ssl
# try one version at a time, with a good client certificate.
SERVER = """
import asyncio, pathlib, socket, ssl, sys
if sys.argv[2] == "late":
    import grpc.aio
import federation.trust.credentials as credentials
import grpc, grpc.aio
from federation.trust import tls

here = pathlib.Path(sys.argv[1])

def attempt(port, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(here / "edge/ca.crt")
    context.load_cert_chain(here / "edge/tls.crt", here / "edge/tls.key")
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    try:
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as secure:
            return secure.version()
    except (ssl.SSLError, ConnectionError):
        return "refused"

async def main():
    server = grpc.aio.server()
    directory = credentials.CredentialDirectory(here / "hub")
    port = server.add_secure_port("127.0.0.1:0", directory.server_credentials())
    await server.start()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        print(await asyncio.to_thread(attempt, port, version))
    await server.stop(None)
    try:
        tls.require()
    except tls.Tls12NotExcluded:
        print("not required in time")

asyncio.run(main())
"""


def outcome(tmp_path: Path, order: str, environment: dict[str, str]) -> list[str]:
    authority = fakes.Authority()
    authority.server(CoordinatorIdentity(fakes.TRUST_DOMAIN)).directory(tmp_path / "hub")
    authority.client(ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")).directory(tmp_path / "edge")
    inherited = {name: value for name, value in os.environ.items() if name != tls.VARIABLE}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(tmp_path), order],
        env=inherited | environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "[warning" not in line]


def test_tls_1_2_is_refused_and_1_3_accepted(tmp_path: Path) -> None:
    """Importing federation.trust before grpc is all it takes."""
    assert outcome(tmp_path, "early", {}) == ["refused", "TLSv1.3"]


def test_the_environment_does_it_as_well(tmp_path: Path) -> None:
    """A child process inherits the variable, and the order of its imports no longer matters."""
    assert outcome(tmp_path, "late", {tls.VARIABLE: tls.RSA_ONLY_SUITE}) == ["refused", "TLSv1.3"]


def test_without_it_tls_1_2_would_be_accepted_and_require_says_so(tmp_path: Path) -> None:
    """The control: grpc imported first accepts TLS 1.2, and a process that calls `require` does not start."""
    assert outcome(tmp_path, "late", {}) == ["TLSv1.2", "TLSv1.3", "not required in time"]


@pytest.mark.parametrize("value", [tls.RSA_ONLY_SUITE])
def test_the_variable_is_set_for_child_processes(value: str) -> None:
    """Whoever imports federation.trust hands the restriction on."""
    assert os.environ[tls.VARIABLE] == value
