"""Flower's own round loop, with rounds that are known already passed over.

Why it exists: `Strategy.start` keeps its results in local variables, which no one outside can set. But all
that it does with a strategy it does by four methods, and by an evaluation function. `Rounds` stands in the
strategy's place: it hands every call on, remembers what came back, says when a round is over, and at a start
that goes on from a snapshot it answers the calls of the rounds before by what they answered then, with no
message sent and no code of the app run. In the same way a loop that is done goes on with more rounds, if the
keeper says that there are to be more: it begins again, and passes over those that it has played. Where
snapshots are kept, when one pays, and who asks for more rounds is not known here.

Only Flower's own `start` is stood in for. An app's `start` with a loop of its own is left alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

STRATEGY_METHODS: Final = frozenset(
    {"configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate", "summary"}
)
"""What Flower's loop calls of a strategy; with another one, nothing would be kept of what it does."""


@dataclasses.dataclass(frozen=True)
class Past:
    """Up to which round a start is known, and what `Keeper.ended` was given of that round."""

    round: int = 0
    roots: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Keeper(Protocol):
    """Keeps rounds. Called on the thread that `start` was called on."""

    def begins(self, roots: Mapping[str, object], num_rounds: int) -> Past | None:
        """Hear that a start begins with these; return what is known of its rounds.

        Where that is something, the objects in `roots` are what they were then. None: it keeps nothing of
        this start.
        """
        ...

    def ended(self, server_round: int, roots: Mapping[str, object]) -> None:
        """Hear that a round is over, but the last, and of what the next ones follow from."""
        ...

    def after(self, num_rounds: int) -> int:
        """Hear that so many rounds are over; return how many there are to be: more, or so many."""
        ...


class Rounds:
    """A strategy, to Flower's loop; see the module's words."""

    def __init__(self, strategy: Strategy, keeper: Keeper, past: Past) -> None:
        """Hand calls on to `strategy`, but for those of the rounds in `past`."""
        self._strategy, self._keeper, self._past = strategy, keeper, past
        self._restored = self._known = past.round or -1  # the evaluation before the first round is of round 0
        self._arrays: ArrayRecord | None = past.roots.get("arrays")
        self._metrics: dict[str, dict[int, Any]] = past.roots.get(
            "metrics", {"train": {}, "evaluate": {}, "server": {}}
        )
        self.evaluate_fn: Callable[..., Any] | None = None

    @property  # type: ignore[misc]  # Flower's loop logs its name
    def __class__(self) -> type:
        return type(self._strategy)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the strategy's."""
        return getattr(self._strategy, name)

    def pass_over(self, num_rounds: int) -> None:
        """So many rounds are over: the loop is to be called again, with more."""
        self._known = num_rounds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Say that the round before is over, and hand on."""
        if server_round <= self._known:
            return []
        if server_round == self._restored + 1:
            restore_generators(self._past.roots["generators"])
        elif server_round > 1:
            self._keeper.ended(
                server_round - 1,
                {"arrays": self._arrays, "metrics": self._metrics, "generators": generators()},
            )
        return self._strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on and remember; of a known round, what it was."""
        if server_round <= self._known:
            # The loop takes the newest arrays that there are.
            return self._arrays if server_round == self._known else None, self._of("train", server_round)
        arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        if arrays is not None:
            self._arrays = arrays
        self._remember("train", server_round, metrics)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on."""
        if server_round <= self._known:
            return []
        return self._strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Hand on and remember; of a known round, what it was."""
        if server_round <= self._known:
            return self._of("evaluate", server_round)
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        self._remember("evaluate", server_round, metrics)
        return metrics

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """The app's own evaluation, in the same way."""
        assert self.evaluate_fn is not None, "it is called in place of one"
        if server_round <= self._known:
            return self._of("server", server_round)
        metrics: MetricRecord | None = self.evaluate_fn(server_round, arrays)
        self._remember("server", server_round, metrics)
        return metrics

    def _remember(self, kind: str, server_round: int, metrics: object) -> None:
        if metrics is not None:
            self._metrics[kind][server_round] = metrics

    def _of(self, kind: str, server_round: int) -> MetricRecord | None:
        return self._metrics[kind].get(server_round)


def is_flowers(start: Callable[..., Any]) -> bool:
    """Whether a `start` is Flower's own, and calls of a strategy what `Rounds` knows, and no more."""
    code = getattr(start, "__code__", None)
    if start.__module__ != Strategy.__module__ or code is None:
        return False
    own = {name for name in code.co_names if hasattr(Strategy, name) and not name.startswith("__")}
    return own == STRATEGY_METHODS


def start(
    method: Callable[..., Any], bound: inspect.BoundArguments, keeper: Keeper, evaluate_fn: object
) -> Any:
    """Call Flower's `start` with its arguments, for a keeper.

    evaluate_fn: the app's own; the one among the arguments may be a wrapper of it.
    """
    arguments = bound.arguments
    strategy = arguments["self"]
    for name in ("train_config", "evaluate_config"):
        if arguments[name] is None:
            arguments[name] = ConfigRecord()  # as the loop does
    given = {
        "strategy": strategy,
        "train_config": arguments["train_config"],
        "evaluate_config": arguments["evaluate_config"],
        "initial_arrays": arguments["initial_arrays"],
        "evaluate_fn": evaluate_fn,
    }
    past = keeper.begins(given, arguments["num_rounds"])
    if past is None:
        return method(*bound.args, **bound.kwargs)
    rounds = Rounds(strategy, keeper, past)
    if arguments["evaluate_fn"]:
        rounds.evaluate_fn = arguments["evaluate_fn"]
        arguments["evaluate_fn"] = rounds.evaluate
    arguments["self"] = rounds
    while True:
        result = method(*bound.args, **bound.kwargs)
        played = arguments["num_rounds"]
        arguments["num_rounds"] = keeper.after(played)
        if arguments["num_rounds"] == played:
            return result
        rounds.pass_over(played)


def generators() -> dict[str, Any]:
    """The states of the process's random generators."""
    states: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state(legacy=False)}
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = torch.get_rng_state().numpy()
        if torch.cuda.is_initialized():
            states["cuda"] = [state.numpy() for state in torch.cuda.get_rng_state_all()]
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """Set the process's random generators to these states."""
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])
    if "torch" in states:
        import torch  # the app had it by then

        torch.set_rng_state(torch.from_numpy(states["torch"]))
        if "cuda" in states:
            torch.cuda.set_rng_state_all([torch.from_numpy(state) for state in states["cuda"]])
