"""An aggregator may run an image that its training names: what that lacks, and what another version says."""

from __future__ import annotations

import json
import pathlib

import pytest

from coordinator.aggregator import app, config
from federation.flower import host

SAID = {
    "namespace": "cardiology",
    "name": "hospitals",
    "uid": "u1",
    "spec": {
        "app": {"source": {"image": {"clientApp": "a:client", "serverApp": "a:server", "later": 1}}},
        "dataset": "heart",
        "server": {"image": "registry.example/apps/cardiology:1", "later": "x"},
        "later": {},
    },
    "hub_address": "127.0.0.1:1",
    "hub_server_name": "coordinator.hanse.local",
    "credential_directory": "/nowhere",
    "trust_domain": "hanse.local",
    "work_directory": "/nowhere",
    "model_store": "file:///nowhere",
    "later": 1,
}


def test_what_a_later_hub_says_besides_is_passed_over() -> None:
    """The image stays when the hub is upgraded, and its aggregator still starts."""
    settings = config.AggregatorConfig.read(json.dumps(SAID).encode())
    assert settings.name == "hospitals"
    app.Aggregator(settings)


@pytest.mark.parametrize(
    ("text", "want_image"),
    [("import surely_not_there\n", True), ("import json.neither\n", True), ("server = 1\n", False)],
)
def test_a_module_that_is_not_there_can_come_with_an_image(
    text: str, want_image: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the field; an app that is wrong in another way gets no such advice."""
    name = f"tiny_image_{len(text)}"  # what was imported stays
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(host.AppNotLoadable) as caught:
        host.load_server_app(f"{name}:server", None)
    said = app.unloadable(caught.value)
    assert said.startswith(str(caught.value))
    assert ("name an image that has the module in spec.server.image" in said) is want_image
