"""The door's files: what Envoy reads, replaced whole whenever it changes.

Envoy runs beside the coordinator and shares one directory with it. This module refuses to know what the
documents mean.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from coordinator.door import envoy
from federation.telemetry import logs

_log = logs.get_logger(__name__)


def prepare(directory: pathlib.Path) -> None:
    """Write the bootstrap and a closed door: Envoy does not start without them. Raises: OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    clusters, listeners = envoy.closed()
    _replace(directory / envoy.CLUSTERS, envoy.text(clusters))
    _replace(directory / envoy.LISTENERS, envoy.text(listeners))
    _replace(directory / envoy.BOOTSTRAP, envoy.text(envoy.bootstrap(str(directory.absolute()))))


class Door:
    """The open door of a hub that leads."""

    def __init__(
        self, directory: pathlib.Path, listen: envoy.Address, *, aggregator_port: int | None, own_host: bool
    ) -> None:
        """Take where Envoy reads and listens; which ports and hosts aggregators may say that they have."""
        self._directory = directory
        self._listen = listen
        self._port = aggregator_port
        self._own_host = own_host
        self._known: envoy.Routes | None = None
        self._aggregators: dict[str, envoy.Address] = {}

    def open(self, control_name: str, control: envoy.Address, enrollment: envoy.Address) -> None:
        """Lead to the hub's own listeners. Raises: OSError."""
        self._known = envoy.Routes(control_name, control, enrollment)
        self._write()

    def lead(self, addresses: Mapping[str, str], whole: bool) -> None:
        """Lead to these aggregators, by server name.

        whole: to no others. Before a hub knows all, those of its last time are led to as well.
        """
        wanted: dict[str, envoy.Address] = {} if whole else dict(self._aggregators)
        for name, text in addresses.items():
            try:
                wanted[name] = envoy.address(text, port=self._port, own_host=self._own_host)
            except envoy.InvalidRoute as error:
                _log.warning("route refused", peer=name, error=str(error))
        if wanted != self._aggregators:
            self._aggregators = wanted
            self._write()

    def close(self) -> None:
        """Lead nowhere any more. Raises: OSError."""
        self._known, self._aggregators = None, {}
        prepare(self._directory)

    def _write(self) -> None:
        if self._known is None:
            return
        routes = envoy.Routes(
            self._known.control_name, self._known.control, self._known.enrollment, self._aggregators
        )
        clusters, listeners = envoy.opened(self._listen, routes)
        # A listener may name only clusters that are known.
        _replace(self._directory / envoy.CLUSTERS, envoy.text(clusters))
        _replace(self._directory / envoy.LISTENERS, envoy.text(listeners))


def _replace(path: pathlib.Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
