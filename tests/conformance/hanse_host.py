"""A conformance app through Hanse: the real aggregator and one real client process for each node.

The hub is a fake that behaves (tests/fakes/hub.py), so that a case takes seconds; `hanse simulate` with the
whole system has tests of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordinator.aggregator import config as aggregator_config
from coordinator.planning import restarts
from edge_agent.client import config as client_config
from federation.api import validation
from federation.apps import bundle
from federation.flower import node_ids
from federation.runtime import failpoints, port, processes
from federation.trust import identity as identities
from tests.fakes import certificates, hub

NAMESPACE, NAME = "conformance", "case"
LIMIT_SECONDS = 180
ROOT = str(Path(__file__).parents[2])


def node_id(site: int) -> int:
    """The node id that Hanse gives a site's cluster."""
    return node_ids.node_id(NAMESPACE, NAME, cluster(site))


def cluster(site: int) -> str:
    """The cluster's name of a site."""
    return f"site-{site}"


async def run(
    app_directory: Path,
    node_configs: Sequence[Mapping[str, Any]],
    run_config: Mapping[str, Any],
    work: Path,
    *,
    strategy: Mapping[str, Any] | None = None,
    late: int = 0,
    spec: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dies_at: Mapping[str, int] | None = None,
    disturb: Callable[[hub.Hub], Awaitable[None]] | None = None,
) -> Path:
    """Run an app; return the ServerApp's working directory with what it wrote.

    `run_config` are overrides; `settings` are more of the aggregator's configuration. The last `late` nodes
    join when the app runs already. `dies_at` are named places (federation/runtime/failpoints.py) with the
    visit at which the aggregator is killed; each time another is started. So it is when the hub has refused
    it, as `disturb`, which runs beside the training, may have it do.
    Raises: RuntimeError with the reason and the logs' last lines if the training does not complete.
    """
    work.mkdir(parents=True)  # noqa: ASYNC240  (nothing else runs yet)
    authority = certificates.Authority()
    packed = bundle.pack(app_directory)
    (work / "app.fab").write_bytes(packed.data)
    the_hub = hub.Hub(work, authority)
    address = await the_hub.start()
    runtime = processes.Processes(work / "logs")
    aggregator = _aggregator(
        work, authority, address, packed.digest, run_config, strategy, spec or {}, settings or {}
    )
    if dies_at:
        aggregator = _mortal(aggregator, work / "failpoints", dies_at)
    watcher = asyncio.create_task(_watch(runtime, the_hub, aggregator, len(dies_at or ())))
    disturbing = None if disturb is None else asyncio.ensure_future(disturb(the_hub))
    try:
        await runtime.start(aggregator)
        exchange = await asyncio.wait_for(the_hub.exchange_address, LIMIT_SECONDS)
        early = len(node_configs) - late
        the_hub.expect(cluster(site) for site in range(early))
        for site in range(early):
            await runtime.start(_client(work, authority, exchange, site, node_configs[site], run_config))
        if late:
            await asyncio.wait_for(
                the_hub.until(lambda report: report.phase != "WaitingForClients"), LIMIT_SECONDS
            )
            the_hub.expect(cluster(site) for site in range(len(node_configs)))
            for site in range(early, len(node_configs)):
                await runtime.start(_client(work, authority, exchange, site, node_configs[site], run_config))
        finished = await asyncio.wait_for(the_hub.finished, LIMIT_SECONDS)
        if not finished.succeeded:
            raise RuntimeError(
                f"{finished.reason}: {finished.message}\n" + "\n".join(finished.log_tail) + _logs(work)
            )
    except TimeoutError as error:
        raise RuntimeError(f"no end after {LIMIT_SECONDS} s" + _logs(work)) from error
    finally:
        if disturbing is not None:
            disturbing.cancel()
        watcher.cancel()
        await runtime.close(2.0)
        await the_hub.stop()
    return work / "aggregator" / "work" / "app"


def _mortal(aggregator: port.Workload, plan: Path, dies_at: Mapping[str, int]) -> port.Workload:
    plan.mkdir()
    for place, visit in dies_at.items():
        (plan / place).write_text(str(visit))
    environment = {**aggregator.environment, failpoints.VARIABLE: str(plan)}
    return dataclasses.replace(aggregator, environment=environment)


async def _watch(
    runtime: processes.Processes, the_hub: hub.Hub, aggregator: port.Workload, deaths: int
) -> None:
    """Start an aggregator again that was killed as planned; any other end without a word ends the wait."""
    async for event in runtime.events():
        if isinstance(event, port.Exited) and event.name == "aggregator":
            if deaths and event.signal == "SIGKILL":
                deaths -= 1
                await runtime.start(aggregator)
                continue
            if event.exit_code == restarts.REFUSED:
                await runtime.start(aggregator)
                continue
            await asyncio.sleep(1.0)  # its last words may be on their way
            for waited in (the_hub.exchange_address, the_hub.finished):
                if not waited.done():
                    waited.set_exception(RuntimeError("the aggregator ended\n" + "\n".join(event.log_tail)))


def _aggregator(
    work: Path,
    authority: certificates.Authority,
    hub_address: str,
    digest: str,
    run_config: Mapping[str, Any],
    strategy: Mapping[str, Any] | None,
    more: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> port.Workload:
    identity = identities.AggregatorIdentity(hub.TRUST_DOMAIN, NAMESPACE, NAME)
    own = hub.credentials_of(authority, identity, work / "aggregator" / "credentials")
    document = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "app": {"source": {"path": "app"}, "runConfig": dict(run_config)},
            "dataset": "conformance",
            **({"strategy": dict(strategy)} if strategy else {}),
            **more,
        },
    }
    config = aggregator_config.AggregatorConfig(
        namespace=NAMESPACE,
        name=NAME,
        uid="conformance",
        spec=validation.parse(document, "case").manifest()["spec"],
        hub_address=hub_address,
        hub_server_name=identities.CoordinatorIdentity(hub.TRUST_DOMAIN).server_name,
        credential_directory=own.path,
        trust_domain=hub.TRUST_DOMAIN,
        app_bundle=work / "app.fab",
        app_digest=digest,
        work_directory=work / "aggregator" / "work",
        **{
            "model_store": (work / "models").as_uri(),
            "start_grace_seconds": 2 * LIMIT_SECONDS,  # no client is left out because it starts slowly
            **settings,
        },
    )
    return port.Workload(
        name="aggregator",
        argv=(sys.executable, "-m", "coordinator.aggregator", "--config", "config.json"),
        directory=work / "aggregator",
        environment={"PYTHONPATH": ROOT},
        files={"config.json": config.model_dump_json().encode()},
    )


def _client(
    work: Path,
    authority: certificates.Authority,
    exchange: str,
    site: int,
    node_config: Mapping[str, Any],
    run_config: Mapping[str, Any],
) -> port.Workload:
    home = work / cluster(site)
    identity = identities.ClientIdentity(hub.TRUST_DOMAIN, cluster(site), NAMESPACE, NAME, "conformance")
    own = hub.credentials_of(authority, identity, home / "credentials")
    app = work / "unpacked"
    if not app.exists():
        app.mkdir()
        bundle.unpack((work / "app.fab").read_bytes(), app)
    config = client_config.ClientConfig(
        cluster=cluster(site),
        dataset="conformance",
        training_namespace=NAMESPACE,
        training_name=NAME,
        training_uid="conformance",
        aggregator_address=exchange,
        aggregator_server_name=identities.AggregatorIdentity(hub.TRUST_DOMAIN, NAMESPACE, NAME).server_name,
        credential_directory=own.path,
        app_directory=app,
        run_config=dict(run_config),
        node_config=dict(node_config),
        state_directory=home / "state",
    )
    return port.Workload(
        name=cluster(site),
        argv=(sys.executable, "-m", "edge_agent.client", "--config", "config.json"),
        directory=home,
        environment={"PYTHONPATH": ROOT},
        files={"config.json": config.model_dump_json().encode()},
    )


def _logs(work: Path) -> str:
    parts = []
    for log in sorted((work / "logs").glob("*.log")):
        tail = "\n  ".join(_readable(line) for line in log.read_text(errors="replace").splitlines()[-12:])
        parts.append(f"\n{log.name}:\n  {tail}")
    return "".join(parts)


def _readable(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return f"{entry.get('event')} {entry.get('exception', '')}"
