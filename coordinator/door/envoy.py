"""What Envoy is told, as its own API wants it: a bootstrap that never changes, and the routes that do.

    coordinator.TD                      the control listener
    TRAINING.NAMESPACE.aggregator.TD    that training's aggregator
    anything else that speaks TLS       the enrollment listener

Envoy reads the name that a TLS client asks for and opens nothing. A chain of filters that stays as it was
keeps its connections when others come and go, so each route is a chain of its own. This module refuses to
know files, processes and who wants which route.

Source: Envoy's API v3 (config/listener, config/cluster, filters/network/tcp_proxy, listener/tls_inspector).
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

BOOTSTRAP = "envoy.json"
LISTENERS = "listeners.json"
CLUSTERS = "clusters.json"

CONNECT_SECONDS = 5
"""Everything behind the door is in the same cluster."""

HELLO_SECONDS = 10
"""Who connects says within this time, in TLS, whom he wants; who says nothing is cut."""

MAXIMUM_CONNECTIONS = 10_000
"""Of the whole door; each costs Envoy some 100 KiB when it is slow."""

MAXIMUM_ENROLLING = 64
"""Anybody may knock at the enrollment listener; joining takes a moment, and a flood stays outside."""

BUFFER_BYTES = 1024 * 1024
"""Bounds what waits in the door for a slow reader, each way; a window of the exchange is not wider."""

IDLE_SECONDS = 300
"""Members' gRPC pings every 20 s, also while a client trains; who is silent for so long has gone, or holds a
place that others need, such as a peer that never closes its half of an ended connection.
"""

ENROLLING_IDLE_SECONDS = 20
"""The same for who knocks at the enrollment listener."""

KEEPALIVE_SECONDS = 60
"""A dead peer is noticed on an idle stream; gRPC's own pings are what keeps a NAT's mapping alive."""

_TYPE = "type.googleapis.com/envoy."
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_ADDRESS = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[0-9.]{7,15}):([0-9]{1,5})")


class InvalidRoute(ValueError):
    """A route that the door does not take; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port."""

    ip: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Routes:
    """Everything that the door leads to.

    aggregators: by server name.
    """

    control_name: str
    control: Address
    enrollment: Address
    aggregators: Mapping[str, Address] = dataclasses.field(default_factory=dict)


def address(text: str, *, port: int | None = None, own_host: bool = False) -> Address:
    """Read IP:PORT as an aggregator says it, which runs an app's code and may say anything.

    port: the only one that is taken; None for any. own_host: whether the door's own host may be meant.
    Raises: InvalidRoute for a name, for an address that is no pod's, for another port.
    """
    found = _ADDRESS.fullmatch(text)
    try:
        if found is None:
            raise ValueError("want an IP address and a port")
        ip, number = ipaddress.ip_address(found[1].strip("[]")), int(found[2])
    except ValueError as error:
        raise InvalidRoute(f"address {text[:80]!r}: {error}") from error
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or (ip.is_loopback and not own_host):
        raise InvalidRoute(f"address {text[:80]!r}: is not the address of a pod")
    if not 0 < number < 65_536 or port not in (None, number):
        raise InvalidRoute(f"address {text[:80]!r}: want port {port or '1 to 65535'}")
    return Address(str(ip), number)


def bootstrap(directory: str) -> dict[str, Any]:
    """Return what Envoy starts with: it reads the rest from two files of a directory, again whenever one is
    replaced by renaming. There is no administration port.
    """
    return {
        "node": {"id": "door", "cluster": "hanse"},
        "dynamic_resources": {
            "cds_config": _file(f"{directory}/{CLUSTERS}"),
            "lds_config": _file(f"{directory}/{LISTENERS}"),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": MAXIMUM_CONNECTIONS,
                    },
                }
            ]
        },
    }


def closed() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (clusters, listeners) of a door that listens nowhere: a hub that does not lead."""
    return _resources([]), _resources([])


def opened(listen: Address, routes: Routes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (clusters, listeners) of an open door. Equal routes give equal documents.

    Raises: InvalidRoute for a name that no certificate of the federation has.
    """
    named = {routes.control_name: routes.control, **dict(sorted(routes.aggregators.items()))}
    for name in named:
        if not _NAME.fullmatch(name) or len(name) > 253:
            raise InvalidRoute(f"server name {name[:80]!r}: want a DNS name in lower case")
    clusters = [_cluster("enrollment", routes.enrollment, MAXIMUM_ENROLLING)]
    chains = []
    for name, to in named.items():
        clusters.append(_cluster(name, to, MAXIMUM_CONNECTIONS))
        chains.append(
            _chain(name, {"server_names": [name], "transport_protocol": "tls"}, [_proxy(name, IDLE_SECONDS)])
        )
    limited = [_limit(MAXIMUM_ENROLLING), _proxy("enrollment", ENROLLING_IDLE_SECONDS)]
    chains.append(_chain("enrollment", {"transport_protocol": "tls"}, limited))
    return _resources(clusters), _resources([_listener(listen, chains)])


def text(document: Mapping[str, Any]) -> bytes:
    """Return a document as the bytes of its file."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _file(path: str) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}


def _resources(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    version = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]
    return {"version_info": version, "resources": list(entries)}


def _socket(to: Address) -> dict[str, Any]:
    return {"socket_address": {"address": to.ip, "port_value": to.port}}


def _cluster(name: str, to: Address, maximum: int) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": KEEPALIVE_SECONDS}},
        "circuit_breakers": {"thresholds": [{"max_connections": maximum, "max_pending_requests": maximum}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(to)}}]}],
        },
    }


def _listener(listen: Address, chains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}config.listener.v3.Listener",
        "name": "door",
        "address": _socket(listen),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.listener.tls_inspector.v3.TlsInspector"
                },
            }
        ],
        "listener_filters_timeout": f"{HELLO_SECONDS}s",
        "socket_options": [
            {"description": "SO_KEEPALIVE", "level": 1, "name": 9, "int_value": 1},
            {"description": "TCP_KEEPIDLE", "level": 6, "name": 4, "int_value": KEEPALIVE_SECONDS},
        ],
        "filter_chains": list(chains),
    }


def _chain(name: str, match: Mapping[str, Any], filters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"name": name, "filter_chain_match": dict(match), "filters": list(filters)}


def _proxy(cluster: str, idle_seconds: int) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "door",
            "cluster": cluster,
            "idle_timeout": f"{idle_seconds}s",
        },
    }


def _limit(connections: int) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.connection_limit",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.network.connection_limit.v3.ConnectionLimit",
            "stat_prefix": "enrollment",
            "max_connections": connections,
        },
    }
