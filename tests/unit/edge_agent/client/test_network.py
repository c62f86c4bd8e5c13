"""Tests for the client's own look at what is open, with real sockets on the loopback."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
from collections.abc import Iterator

import pytest

from edge_agent.client import app, network
from edge_agent.client import config as client_config
from federation.apps import bundle, errors


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.on_sleep = lambda: None

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.on_sleep()


@contextlib.contextmanager
def listener(family: socket.AddressFamily = socket.AF_INET) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1" if family is socket.AF_INET else "::1", 0))
        listening.listen()
        host, port = listening.getsockname()[:2]
        yield listening, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def closed_port() -> str:
    with listener() as (_, address):
        return address


def look(closed: tuple[str, ...], door: str, clock: Clock) -> None:
    network.wait_until_restricted(closed, door, connect_seconds=0.3, now=clock.now, sleep=clock.sleep)


def test_closed_addresses_let_it_begin_at_once() -> None:
    """The door is open, the others are closed: no waiting."""
    clock = Clock()
    with listener() as (_, door):
        look((closed_port(), closed_port()), door, clock)
    assert clock.seconds == 0


def test_without_addresses_nothing_is_looked_at() -> None:
    """A simulation's client has no network of its own."""
    look((), "no such place", Clock())


def test_an_open_address_is_waited_for_and_then_refused() -> None:
    """The sentence names the address, how long, and what to do."""
    clock = Clock()
    with (
        listener() as (_, door),
        listener() as (_, api),
        pytest.raises(network.NotRestricted, match=f"{api} can be reached .* after 30 s, .*NetworkPolicy"),
    ):
        look((closed_port(), api), door, clock)
    assert clock.seconds == network.PATIENCE_SECONDS


def test_a_policy_that_comes_into_force_late_is_waited_for() -> None:
    """The leak of a pod's first moments ends in time."""
    clock = Clock()
    with listener() as (_, door), listener() as (listening, api):
        clock.on_sleep = lambda: listening.close() if clock.seconds >= 3 else None
        look((api,), door, clock)
    assert 3 <= clock.seconds < 4


def test_a_door_that_opens_late_is_waited_for_first() -> None:
    """A network that is not up yet would seem restricted."""
    clock = Clock()
    door = closed_port()
    opened: list[socket.socket] = []

    def open_door() -> None:
        if clock.seconds >= 2 and not opened:
            host, port = door.split(":")
            opened.append(socket.create_server((host, int(port))))

    clock.on_sleep = open_door
    look((closed_port(),), door, clock)
    assert 2 <= clock.seconds < 3
    opened[0].close()


def test_a_door_that_never_opens_costs_ten_seconds() -> None:
    """The hub may be away; what must be closed is looked at all the same."""
    clock = Clock()
    look((closed_port(),), closed_port(), clock)
    assert clock.seconds == network.DOOR_SECONDS


@pytest.mark.parametrize("form", ["{}", "ipv4:{}", "ipv4:127.0.0.1:1,{}"])
def test_the_door_is_found_in_what_grpc_dials(form: str) -> None:
    """Names and lists of IP addresses."""
    clock = Clock()
    with listener() as (_, door):
        look((closed_port(),), form.format(door), clock)
    assert clock.seconds == 0


def configuration(tmp_path: pathlib.Path, **fields: object) -> client_config.ClientConfig:
    return client_config.ClientConfig(
        cluster="zurich",
        dataset="heart",
        training_namespace="cardiology",
        training_name="hospitals",
        training_uid="u",
        aggregator_address=closed_port(),
        aggregator_server_name="h",
        credential_directory=tmp_path / "credentials",
        state_directory=tmp_path / "state",
        **fields,
    )


def test_a_client_in_an_open_network_touches_nothing_and_says_why(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 and last words for the agent; no app, no credentials, no data were needed."""
    monkeypatch.setattr(network.wait_until_restricted, "__kwdefaults__", {
        **network.wait_until_restricted.__kwdefaults__, "patience_seconds": 0.0, "door_seconds": 0.0,
    })  # fmt: skip
    with listener() as (_, api):
        config = configuration(
            tmp_path, closed_addresses=(api,), termination_log=tmp_path / "words", client_app="no.such:app"
        )
        assert app.run(config) == 1
    words = json.loads((tmp_path / "words").read_text())
    assert words["reason"] == "NetworkNotRestricted"
    assert api in words["message"]


def packed(tmp_path: pathlib.Path) -> bytes:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    (source / "client.py").write_text("app = None\n" * 50)
    return bundle.pack(source).data


def test_an_app_that_comes_in_parts_is_joined_and_unpacked(tmp_path: pathlib.Path) -> None:
    """In the order of the parts' names; a mounted volume's hidden directories are passed over."""
    data = packed(tmp_path)
    parts = tmp_path / "parts"
    (parts / "..data").mkdir(parents=True)
    for number, start in enumerate(range(0, len(data), 100)):
        (parts / f"part-{number:04}").write_bytes(data[start : start + 100])
    config = configuration(tmp_path, app_bundle=parts, app_digest=bundle.digest(data))
    app._unpack(config, tmp_path / "state" / "app")
    assert (tmp_path / "state" / "app" / "client.py").read_text().startswith("app = None")


def test_an_app_with_another_digest_is_refused(tmp_path: pathlib.Path) -> None:
    """Whoever wrote the parts: only what policy allowed is loaded."""
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "part-0000").write_bytes(packed(tmp_path) + b"x")
    config = configuration(tmp_path, app_bundle=parts, app_digest="sha256:" + "0" * 64)
    with pytest.raises(errors.InvalidBundle, match=r"handed over is sha256:.* was allowed"):
        app._unpack(config, tmp_path / "app")
    assert not (tmp_path / "app").exists()
