"""A real API server for tests: etcd and kube-apiserver on loopback, without a node, without root.

What an API server does is hard to imitate (server-side apply, CEL, watches, optimistic writes), so nothing
here does. Pods do not run: `tests/fakes/kubelet.py` says of them what a kubelet would. Both programs die
with the process that started them. Where the programs are missing, `missing()` says so in a sentence.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.kube import client

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
CONTROLLERS = (
    "job-controller",
    "serviceaccount-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "ttl-after-finished-controller",
    "persistentvolumeclaim-protection-controller",
)
_PR_SET_PDEATHSIG = 1


def programs() -> Mapping[str, pathlib.Path]:
    """Return where etcd, kube-apiserver and kube-controller-manager are, of those that are there."""
    cache = pathlib.Path.home() / ".cache"
    places = [pathlib.Path(os.environ["KUBEBUILDER_ASSETS"])] if os.environ.get("KUBEBUILDER_ASSETS") else []
    places += sorted((cache / "hanse" / "lab").glob("v*"), reverse=True)
    places += [cache / "hanse" / "lab" / "network", cache / "hanse-k8s" / "bin"]
    found: dict[str, pathlib.Path] = {}
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        for place in places:
            if os.access(place / name, os.X_OK):
                found.setdefault(name, place / name)
    return found


def missing() -> str:
    """Return a sentence that says what is missing to start one; empty if nothing is."""
    lacking = sorted({"etcd", "kube-apiserver", "kube-controller-manager"} - programs().keys())
    if not lacking:
        return ""
    return f"no {', '.join(lacking)}; name their directory in KUBEBUILDER_ASSETS, or run `hanse lab up` once"


@dataclasses.dataclass
class ControlPlane:
    """One running API server. `kubeconfig` is its administrator's; `kubeconfig_for` makes others."""

    directory: pathlib.Path
    server: str
    kubeconfig: pathlib.Path
    processes: list[subprocess.Popen[bytes]]

    def kubeconfig_for(self, user: str) -> pathlib.Path:
        """Return the kubeconfig of one of the users that `start` was given."""
        return self.directory / f"{user}.kubeconfig"

    def restart_server(self) -> None:
        """End the API server and start it again: it forgets what changed before, and says so if asked."""
        (old,) = (each for each in self.processes if _name(each) == "kube-apiserver")
        old.kill()
        old.wait()
        self.processes.remove(old)
        _, *arguments = map(str, old.args)  # type: ignore[arg-type]
        _spawn(self, "kube-apiserver", programs()["kube-apiserver"], *arguments)
        _until_ready(self, yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"])

    @contextlib.contextmanager
    def standing_still(self, program: str) -> Iterator[None]:
        """Hold one of the programs up, as an overloaded disk or a lost machine would: nothing is refused, and
        nothing is answered. What was asked meanwhile is answered afterwards.
        """
        (process,) = [one for one in self.processes if _name(one) == program]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the programs and remove what they wrote."""
        for process in reversed(self.processes):
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def through(kubeconfig: pathlib.Path, address: str) -> pathlib.Path:
    """Return a kubeconfig that reaches the same API server by another address (host:port)."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://{address}"
    made = kubeconfig.with_name(f"{kubeconfig.stem}-by-{address.rpartition(':')[2]}.kubeconfig")
    made.write_text(yaml.safe_dump(content))
    made.chmod(0o600)
    return made


def start(
    *, controllers: bool = True, crds: bool = True, users: Mapping[str, Sequence[str]] | None = None
) -> ControlPlane:
    """Start an API server, with the controllers that Jobs, namespaces and garbage collection need.

    Call it from a thread that outlives the programs (the main one): they die with it.
    controllers: without them it is up sooner, and Jobs make no pods, and owned objects stay.
    crds: put Hanse's own kinds in.
    users: further users by name with their groups (`{"edge": ["system:authenticated"]}`).
    """
    found = programs()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hanse-controlplane-"))
    plane = ControlPlane(directory, "", directory / "admin.kubeconfig", [])
    try:
        _start(plane, found, controllers, {"admin": ["system:masters"], **(users or {})})
        if crds:
            _apply_crds(plane)
    except BaseException:
        plane.stop()
        raise
    return plane


def _start(
    plane: ControlPlane,
    found: Mapping[str, pathlib.Path],
    controllers: bool,
    users: Mapping[str, Sequence[str]],
) -> None:
    directory = plane.directory
    client_port, peer_port, secure_port, unused = _free_ports(4)
    etcd = f"http://127.0.0.1:{client_port}"
    plane.server = f"https://127.0.0.1:{secure_port}"
    _spawn(
        plane, "etcd", found["etcd"],
        f"--data-dir={directory}/etcd", "--unsafe-no-fsync", f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}", "--log-level=error",
    )  # fmt: skip
    tokens = {user: secrets.token_hex(16) for user in users}
    rows = [f'{tokens[user]},{user},{user},"{",".join(groups)}"' for user, groups in users.items()]
    (directory / "tokens.csv").write_text("\n".join(rows) + "\n")
    key = directory / "service-accounts.key"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    for user in users:
        _write_kubeconfig(plane.kubeconfig_for(user), plane.server, user, tokens[user])
    # Without a kubelet nothing needs kubernetes.default's endpoints; the address is any that is no loopback.
    _spawn(
        plane, "kube-apiserver", found["kube-apiserver"],
        f"--etcd-servers={etcd}", f"--secure-port={secure_port}", "--bind-address=127.0.0.1",
        "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", f"--cert-dir={directory}/certs",
        f"--token-auth-file={directory}/tokens.csv", "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/16",
        "--watch-cache=true", "-v=0",
        *([] if controllers else ["--disable-admission-plugins=ServiceAccount"]),
    )  # fmt: skip
    _until_ready(plane, tokens["admin"])
    if controllers:
        _spawn(
            plane, "kube-controller-manager", found["kube-controller-manager"],
            f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false",
            f"--controllers={','.join(CONTROLLERS)}", f"--secure-port={unused}", "--bind-address=127.0.0.1",
            f"--cert-dir={directory}/certs-manager", f"--service-account-private-key-file={key}", "-v=0",
        )  # fmt: skip
        _until_default_account(plane, tokens["admin"])


def _spawn(plane: ControlPlane, name: str, program: pathlib.Path, *arguments: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with (plane.directory / f"{name}.log").open("wb") as log:
        plane.processes.append(
            subprocess.Popen(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        )


def _name(process: subprocess.Popen[bytes]) -> str:
    return pathlib.Path(str(process.args[0])).name  # type: ignore[index]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _write_kubeconfig(path: pathlib.Path, server: str, user: str, token: str) -> None:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {
                            "server": server,
                            "certificate-authority": str(path.parent / "certs" / "apiserver.crt"),
                        },
                    }
                ],
                "users": [{"name": user, "user": {"token": token}}],
            }
        )
    )
    path.chmod(0o600)


def _until_ready(plane: ControlPlane, token: str) -> None:
    _until(plane, token, "/readyz")


def _until_default_account(plane: ControlPlane, token: str) -> None:
    _until(plane, token, "/api/v1/namespaces/default/serviceaccounts/default")


def _until(plane: ControlPlane, token: str, path: str) -> None:
    """Ask until the path answers 200; polling, because nothing can be watched before it is there."""
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(plane.server + path, headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    )
    while True:
        for process in plane.processes:
            if process.poll() is not None:
                name = _name(process)
                log = (plane.directory / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log}")
        try:
            with opener.open(request, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{plane.server}{path} did not answer within {START_SECONDS} s")
        time.sleep(0.1)


async def define(api: client.Client, definitions: Sequence[client.Object]) -> None:
    """Apply CustomResourceDefinitions, and wait until the server serves their kinds."""
    listing = await api.list("CustomResourceDefinition")
    for definition in definitions:
        await api.apply(definition)
    pending = {definition["metadata"]["name"] for definition in definitions}
    pending -= {each["metadata"]["name"] for each in listing.items if _established(each)}
    if not pending:
        return
    async for change in api.watch("CustomResourceDefinition", listing.resource_version):
        if _established(change.object):
            pending.discard(change.object["metadata"]["name"])
        if not pending:
            return


def _apply_crds(plane: ControlPlane) -> None:
    definitions = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]

    async def apply() -> None:
        async with await client.Client.connect(plane.kubeconfig) as api:
            await define(api, definitions)

    def in_a_loop_of_its_own() -> None:
        asyncio.run(asyncio.wait_for(apply(), START_SECONDS))

    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # the caller may be inside a loop already
        thread.submit(in_a_loop_of_its_own).result()


def _established(crd: dict[str, object]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []  # type: ignore[attr-defined]
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
