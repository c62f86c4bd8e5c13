"""A training's app is packed once, or its problem is named with the next step."""

import pathlib
from typing import Any

import pytest

from coordinator.clients import bundles
from coordinator.planning import snapshot
from federation.apps import bundle

PYPROJECT = """
[project]
name = "tiny"
version = "1.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
{components}
[tool.flwr.app.config]
num-server-rounds = 3
"""
BOTH = 'serverapp = "tiny:server"\nclientapp = "tiny:client"'
CLIENT_ONLY = 'clientapp = "tiny:client"'


def write(directory: pathlib.Path, components: str = BOTH) -> pathlib.Path:
    """A small app directory."""
    app = directory / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(PYPROJECT.format(components=components))
    (app / "tiny.py").write_text("client = server = None\n")
    return app


def resource(source: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A training of an app."""
    app = {"source": source} | spec.pop("app", {})
    return {"metadata": {"uid": "uid-1", "generation": 1}, "spec": {"app": app} | spec}


async def resolve(directory: pathlib.Path, training: dict[str, Any]) -> snapshot.App | snapshot.Problem:
    """Resolve with a fresh shelf."""
    return await bundles.Apps(bundles.BundleShelf(directory / "shelf")).resolve(training)


async def test_an_app_by_path_is_packed_and_kept_by_digest(tmp_path: pathlib.Path) -> None:
    """What was accepted stays what it was, whatever happens to the directory afterwards."""
    app = write(tmp_path)
    packed = bundle.pack(app)
    shelf = bundles.BundleShelf(tmp_path / "shelf")
    apps = bundles.Apps(shelf)
    training = resource({"path": str(app)})
    found = snapshot.App(digest=packed.digest, server_app="tiny:server")
    assert await apps.resolve(training) == found
    (app / "tiny.py").write_text("changed = True\n")
    assert await apps.resolve(training) == found
    kept = shelf.path(packed.digest)
    assert kept is not None
    assert kept.read_bytes() == packed.data


async def test_an_installed_app_has_no_bundle(tmp_path: pathlib.Path) -> None:
    """References into the image are passed on."""
    found = await resolve(tmp_path, resource({"image": {"clientApp": "a.b:c", "serverApp": "a.b:s"}}))
    assert found == snapshot.App(client_app="a.b:c", server_app="a.b:s")


@pytest.mark.parametrize(
    ("components", "spec", "want"),
    [
        (CLIENT_ONLY, {}, "ServerAppMissing"),
        ('serverapp = "tiny:server"', {}, "AppNotLoadable"),
        (BOTH, {"app": {"digest": "sha256:" + "0" * 64}}, "DigestMismatch"),
        (BOTH, {"app": {"runConfig": {"num-server-round": 3}}}, "InvalidSpec"),
    ],
    ids=["no server app", "no client app", "other digest", "unknown run config"],
)
async def test_problems_are_named(
    tmp_path: pathlib.Path, components: str, spec: dict[str, Any], want: str
) -> None:
    """Each problem has its reason and a whole sentence."""
    found = await resolve(tmp_path, resource({"path": str(write(tmp_path, components))}, **spec))
    assert isinstance(found, snapshot.Problem)
    assert found.reason == want
    assert found.message.endswith(".")


async def test_a_strategy_makes_up_for_a_missing_server_app(tmp_path: pathlib.Path) -> None:
    """An app with a ClientApp only is fine with spec.strategy."""
    app = write(tmp_path, CLIENT_ONLY)
    found = await resolve(tmp_path, resource({"path": str(app)}, strategy={"name": "FedAvg", "rounds": 3}))
    assert isinstance(found, snapshot.App)


async def test_an_app_that_was_put_right_is_found(tmp_path: pathlib.Path) -> None:
    """A problem is not remembered."""
    apps = bundles.Apps(bundles.BundleShelf(tmp_path / "shelf"))
    training = resource({"path": str(tmp_path / "app")})
    problem = await apps.resolve(training)
    assert isinstance(problem, snapshot.Problem)
    assert problem.reason == "AppNotFound"
    write(tmp_path)
    assert isinstance(await apps.resolve(training), snapshot.App)


async def test_a_source_that_this_hub_cannot_read_is_named(tmp_path: pathlib.Path) -> None:
    """The message says what can be used instead."""
    found = await resolve(tmp_path, resource({"oci": {"reference": "registry.example/app:1"}}))
    assert isinstance(found, snapshot.Problem)
    assert "source oci" in found.message


def test_the_shelf_takes_digests_only(tmp_path: pathlib.Path) -> None:
    """A digest is no way out of the directory."""
    shelf = bundles.BundleShelf(tmp_path)
    assert shelf.path("sha256:../../etc/passwd") is None
    assert shelf.path("") is None


async def test_a_spec_that_is_refused_is_refused_before_its_app_is_read(tmp_path: pathlib.Path) -> None:
    """Until it is refused no more; nothing of it is kept."""
    refusals = [snapshot.Problem("ImageNotAllowed", "no"), None]
    shelf = bundles.BundleShelf(tmp_path / "shelf")
    apps = bundles.Apps(shelf, refusal=lambda spec: refusals.pop(0))
    training = resource({"path": str(write(tmp_path))})
    assert await apps.resolve(training) == snapshot.Problem("ImageNotAllowed", "no")
    assert not (tmp_path / "shelf").exists()
    assert isinstance(await apps.resolve(training), snapshot.App)


async def test_the_app_of_a_training_that_is_over_is_not_looked_for(tmp_path: pathlib.Path) -> None:
    """However many there are whose ConfigMaps are gone, and whoever leads."""
    asked: list[str] = []

    async def read(namespace: str, name: str, key: str) -> bytes | None:
        asked.append(name)
        return None

    apps = bundles.Apps(bundles.BundleShelf(tmp_path / "shelf"), read)
    training = resource({"configMap": {"name": "tiny-app"}})
    status = {
        "startedAt": "2026-01-01T00:00:00Z",
        "app": {"digest": "sha256:" + "1" * 64},
        "conditions": [{"type": "Completed", "status": "True"}],
    }
    assert await apps.resolve(training | {"status": status}) == snapshot.App("sha256:" + "1" * 64)
    assert asked == []
