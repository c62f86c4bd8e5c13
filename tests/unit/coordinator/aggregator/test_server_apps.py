"""ServerApps out of a manifest's strategy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as strategies

from coordinator.aggregator import server_apps
from federation.flower import host
from tests.fakes import exchange as fakes

WRAPPERS = {name for name in strategies.__all__ if name.startswith("DifferentialPrivacy")}
STOCK = sorted(set(strategies.__all__) - WRAPPERS - {"Strategy", "Result"})
FROM_A_CLIENT = [np.full((2, 2), 4.0, np.float32)]


process = fakes.process


@pytest.mark.parametrize("name", STOCK)
def test_every_stock_strategy_builds_from_a_manifest(name: str, tmp_path: Path) -> None:
    """Parameters in the manifest's spelling reach the constructor."""
    parameters = {"min-train-nodes": 3, "min-available-nodes": 4, "weighted-by-key": "n"}
    if name == "FedProx":
        parameters["proximal-mu"] = 0.5
    if name == "QFedAvg":
        parameters["client-learning-rate"] = 0.1
    if name == "FedXgbCyclic":
        parameters = {}
    server_apps.from_strategy(server_apps.StrategySpec(name, 1, parameters), tmp_path)
    built = server_apps.build(name, {key.replace("-", "_"): value for key, value in parameters.items()})
    if parameters:
        assert (built.min_train_nodes, built.weighted_by_key) == (3, "n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_a_wrapper_builds_from_a_manifest(name: str, tmp_path: Path) -> None:
    """It goes around FedAvg, or around the strategy that is named, with that one's own parameters."""
    parameters = {"noise-multiplier": 0.3, "num-sampled-clients": 20}
    if "Fixed" in name:
        parameters["clipping-norm"] = 0.5
    server_apps.from_strategy(server_apps.StrategySpec(name, 1, parameters), tmp_path)
    arguments = {key.replace("-", "_"): value for key, value in parameters.items()}
    inner = {"strategy": "FedProx", "strategy.proximal_mu": 0.25, "strategy.min_train_nodes": 3}
    built = server_apps.build(name, {**arguments, **inner}).strategy  # type: ignore[attr-defined]
    assert (type(built).__name__, built.proximal_mu, built.min_train_nodes) == ("FedProx", 0.25, 3)
    with pytest.raises(server_apps.StrategyInvalid, match="FedAvg takes no proximal-mu; it takes"):
        server_apps.build(name, {**arguments, "strategy.proximal_mu": 0.25})


def test_fedbuff_builds_from_a_manifest(tmp_path: Path) -> None:
    """Ours stands beside Flower's, with its own parameters and those that it has of FedAvg."""
    parameters = {"buffer-size": 3, "concurrency": 5, "server-learning-rate": 0.5, "fraction-evaluate": 0.5}
    server_apps.from_strategy(server_apps.StrategySpec("FedBuff", 1, parameters), tmp_path)
    built = server_apps.build("FedBuff", {key.replace("-", "_"): value for key, value in parameters.items()})
    assert (built.buffer_size, built.concurrency, built.fraction_evaluate) == (3, 5, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name, parameters, want",
    [
        ("FedBest", {}, "FedBest is none of the strategies that there are: Bulyan, "),
        ("Strategy", {}, "Strategy is none of"),
        ("FedAvg", {"fraction-trane": 1}, "FedAvg takes no fraction-trane; it takes fraction-train, "),
        ("FedBuff", {"buffer-size": 0}, "FedBuff refuses them: buffer_size is 0, it must be at least 1"),
        ("QFedAvg", {}, "spec.strategy.parameters: QFedAvg refuses them: .*client_learning_rate"),
    ],
)
def test_a_wrong_strategy_is_one_sentence(
    name: str, parameters: dict[str, object], want: str, tmp_path: Path
) -> None:
    """It names what is wrong and what there is."""
    with pytest.raises(server_apps.StrategyInvalid, match=want):
        server_apps.from_strategy(server_apps.StrategySpec(name, 1, parameters), tmp_path)


class Client(NumPyClient):
    def get_parameters(self, config: object) -> list[np.ndarray]:
        return FROM_A_CLIENT


def run(
    tmp_path: Path,
    parameters: dict[str, object],
    app: ClientApp | None = None,
    said: dict[str, dict[str, object]] | None = None,
) -> list[ArrayRecord]:
    """Run one round of FedAvg over one client; return what was sent to it for training.

    said: is filled with what the messages say to the app, by what they ask for.
    """
    sent: list[ArrayRecord] = []
    heard = {} if said is None else said

    def answer(message: Message, context: Context) -> Message:
        if app is not None and message.metadata.message_type == "get_parameters":
            return app(message, context)
        if "config" in message.content:
            heard[message.metadata.message_type] = dict(message.content["config"])  # type: ignore[arg-type]
        if message.metadata.message_type != "train":
            return Message(Error(2, "no such action"), reply_to=message)
        sent.append(ArrayRecord({k: Array(a.numpy()) for k, a in message.content["arrays"].items()}))  # type: ignore[union-attr]
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": message.content["arrays"], "m": metrics}), reply_to=message)

    nodes = {"fraction-evaluate": 0.0, "min-available-nodes": 1, "min-train-nodes": 1}
    with fakes.Federation(tmp_path) as federation:
        federation.expect("zurich")
        federation.client("zurich", answer)
        federation.started()
        spec = server_apps.StrategySpec("FedAvg", 1, {**nodes, **parameters})
        made = server_apps.from_strategy(spec, tmp_path)
        made(federation.grid, host.make_context(fakes.RUN_ID, 1, {}, {}))
    return sent


WANT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("kind", ["record", "list", "mapping", "npz", "safetensors"])
def test_the_first_model_comes_from_where_the_manifest_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the app (an ArrayRecord, a list, a mapping), or a file beside its pyproject.toml."""
    source = {"npz": "first.npz", "safetensors": "first.safetensors"}.get(
        kind, f"first_model_of_a_test:{kind}"
    )
    np.savez(tmp_path / "first.npz", w=WANT)
    safetensors.numpy.save_file({"w": WANT}, tmp_path / "first.safetensors")
    module = type(sys)("first_model_of_a_test")
    module.__dict__.update(
        record=lambda: ArrayRecord({"w": Array(WANT)}), list=lambda: [WANT], mapping=lambda: {"w": WANT}
    )
    monkeypatch.setitem(sys.modules, "first_model_of_a_test", module)
    (first,) = run(tmp_path, {"initial-arrays": source})
    assert list(first) == ["0" if kind == "list" else "w"]
    assert np.array_equal(next(iter(first.values())).numpy(), WANT)


def test_what_messages_say_to_the_app_comes_from_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, texts and truths, as the ClientApp reads them from its message."""
    module = type(sys)("first_model_of_a_test")
    module.__dict__.update(record=lambda: ArrayRecord({"w": Array(WANT)}))
    monkeypatch.setitem(sys.modules, "first_model_of_a_test", module)
    parameters: dict[str, object] = {
        "initial-arrays": "first_model_of_a_test:record",
        "min-evaluate-nodes": 1,
        "fraction-evaluate": 1.0,
        "train-config.lr": 0.05,
        "train-config.local-epochs": 2,
        "evaluate-config.full": True,
    }
    said: dict[str, dict[str, object]] = {}
    run(tmp_path, parameters, said=said)
    assert said["train"] == {"lr": 0.05, "local-epochs": 2, "server-round": 1}
    assert said["evaluate"] == {"full": True, "server-round": 1}


def test_without_a_word_a_numpy_client_is_asked(tmp_path: Path) -> None:
    """As in Flower's older API, the first client's parameters are the first model."""
    app = ClientApp(client_fn=lambda context: Client().to_client())
    (first,) = run(tmp_path, {}, app)
    assert np.array_equal(next(iter(first.values())).numpy(), FROM_A_CLIENT[0])


@pytest.mark.parametrize(
    "parameters, want",
    [
        ({}, "nothing says what the first model is"),
        ({"initial-arrays": "nothing"}, "neither module:function nor"),
        ({"initial-arrays": "no_such_module_here:f"}, "No module named 'no_such_module_here'"),
        ({"initial-arrays": "json:no_such"}, "no_such"),
        ({"initial-arrays": "missing.npz"}, r"missing\.npz"),
        ({"initial-arrays": "missing.safetensors"}, r"missing\.safetensors"),
    ],
)
def test_no_first_model_is_one_sentence(parameters: dict[str, object], want: str, tmp_path: Path) -> None:
    """It says where to put one."""
    with pytest.raises(server_apps.StrategyInvalid, match=want):
        run(tmp_path, parameters)
