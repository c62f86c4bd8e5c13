"""The ServerApp of a training: the user's own, or one made from the manifest's strategy.

Why it exists: many teams write only the part beside the data. For them `spec.strategy` names one of Flower's
strategies and its parameters, and this module is the ServerApp around it. It knows no channel and no status.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as strategies

from federation import strategies as own_strategies
from federation.flower import replies

INITIAL_ARRAYS = "initial-arrays"
"""The strategy parameter that says where the first model comes from: `module:function` of the app, or a
.npz or .safetensors file beside the app's pyproject.toml."""

TRAIN_CONFIG = "train-config"
EVALUATE_CONFIG = "evaluate-config"
WRAPPED = "strategy"


class StrategyInvalid(Exception):
    """The manifest's strategy cannot be built; the message is one sentence for its author."""


class StrategyUnknown(StrategyInvalid):
    """There is no strategy of this name."""


@dataclass(frozen=True)
class StrategySpec:
    """`spec.strategy` of a FederatedTraining."""

    name: str
    rounds: int
    parameters: Mapping[str, Any]


def from_strategy(spec: StrategySpec, app_directory: Path) -> ServerApp:
    """Make a ServerApp that runs one of Flower's strategies, or of ours, for `spec.rounds` rounds.

    Parameters are those of the strategy's constructor, with dashes or underscores; `initial-arrays`; and what
    every message says to the ClientApp, as `train-config.NAME` and `evaluate-config.NAME`.
    Raises: StrategyInvalid for an unknown strategy or parameter, with the known ones.
    """
    configs: dict[str, dict[str, Any]] = {TRAIN_CONFIG: {}, EVALUATE_CONFIG: {}}
    arguments: dict[str, Any] = {}
    for name, value in spec.parameters.items():
        config, dot, key = name.partition(".")
        if dot and key and config in configs:
            configs[config][key] = value
        elif name != INITIAL_ARRAYS:
            arguments[name.replace("-", "_")] = value
    strategy = build(spec.name, arguments)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        source = spec.parameters.get(INITIAL_ARRAYS)
        arrays = _initial_arrays(source, app_directory) if source else _arrays_of_a_client(grid)
        strategy.start(
            grid=grid,
            initial_arrays=arrays,
            num_rounds=spec.rounds,
            train_config=ConfigRecord(dict(configs[TRAIN_CONFIG])),
            evaluate_config=ConfigRecord(dict(configs[EVALUATE_CONFIG])),
        )

    return app


def build(name: str, arguments: Mapping[str, Any]) -> strategies.Strategy:
    """Construct a strategy by its class name.

    One that wraps another, as Flower's for differential privacy, takes its name as `strategy`, FedAvg unless
    given, and what that one takes as `strategy.NAME`.
    Raises: StrategyInvalid.
    """
    known = {cls: getattr(strategies, cls) for cls in strategies.__all__ if cls not in ("Strategy", "Result")}
    known |= {cls: getattr(own_strategies, cls) for cls in own_strategies.__all__}
    if name not in known:
        raise StrategyUnknown(
            f"spec.strategy.name: {name} is none of the strategies that there are: {', '.join(sorted(known))}"
        )
    accepted = inspect.signature(known[name]).parameters
    if WRAPPED in accepted:
        outer = {key: value for key, value in arguments.items() if not key.startswith(f"{WRAPPED}.")}
        inner = {key.partition(".")[2]: arguments[key] for key in arguments.keys() - outer.keys()}
        arguments = {**outer, WRAPPED: build(str(outer.get(WRAPPED, "FedAvg")), inner)}
    for argument in arguments:
        if argument not in accepted:
            raise StrategyInvalid(
                f"spec.strategy.parameters: {name} takes no {argument.replace('_', '-')}; "
                f"it takes {', '.join(parameter.replace('_', '-') for parameter in accepted)}"
            )
    try:
        built: strategies.Strategy = known[name](**arguments)
    except Exception as error:
        raise StrategyInvalid(f"spec.strategy.parameters: {name} refuses them: {error}") from error
    return built


def _initial_arrays(source: str, directory: Path) -> ArrayRecord:
    if source.endswith((".npz", ".safetensors")):
        try:
            return _stored_arrays(directory / source)
        except Exception as error:  # whatever a broken file provokes in its reader
            raise StrategyInvalid(f"spec.strategy.parameters.{INITIAL_ARRAYS}: {source}: {error}") from error
    made = _function(source)()
    if isinstance(made, ArrayRecord):
        return made
    if isinstance(made, list):
        return ArrayRecord(made)
    if isinstance(made, Mapping) and all(isinstance(value, np.ndarray) for value in made.values()):
        return ArrayRecord({name: Array(value) for name, value in made.items()})
    return ArrayRecord(made)


def _stored_arrays(file: Path) -> ArrayRecord:
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as stored:
            return ArrayRecord({name: Array(stored[name]) for name in stored.files})
    import safetensors.numpy

    return ArrayRecord({name: Array(value) for name, value in safetensors.numpy.load_file(file).items()})


def _function(reference: str) -> Callable[[], Any]:
    module, _, attribute = reference.partition(":")
    if not attribute:
        raise StrategyInvalid(
            f"spec.strategy.parameters.{INITIAL_ARRAYS}: {reference!r} is neither module:function "
            "nor a .npz or .safetensors file"
        )
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise StrategyInvalid(f"spec.strategy.parameters.{INITIAL_ARRAYS}: {reference}: {error}") from error
    return function


def _arrays_of_a_client(grid: Grid) -> ArrayRecord:
    """Ask the first client for its model, as Flower's older API does; a NumPyClient answers that."""
    node = min(grid.get_node_ids())
    answers = list(
        grid.send_and_receive([Message(replies.parameters_request(), node, replies.GET_PARAMETERS)])
    )
    if not answers or answers[0].has_error():
        why = answers[0].error.reason if answers else "it did not answer"
        raise StrategyInvalid(
            "the app has no ServerApp and nothing says what the first model is: set "
            f"spec.strategy.parameters.{INITIAL_ARRAYS} to module:function or to a file of the app "
            f"(a client was asked as well: {why})"
        )
    return replies.parameters_in(answers[0].content)
