"""Any Flower app gives the same result through Hanse as through Flower's own parts, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from federation.apps import config as app_config
from tests.conformance import hanse_host, reference

pytestmark = pytest.mark.process


@pytest.mark.parametrize("case", reference.CASES, ids=lambda case: case.name)
async def test_same_result_to_the_last_bit(case: reference.Case, tmp_path: Path) -> None:
    """The result that the ServerApp writes down is equal, arrays and metrics."""
    await _compare(case, tmp_path)


ONE_BATCH = {"configuration", "configuration-overrides", "large"}
STATELESS = {"FedAvg", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan", "FedProx"}
"""Strategies that remember nothing from round to round; from each of their rounds on, and from those of all
others, tests/unit/federation/flower/test_kept_rounds.py goes on."""


@pytest.mark.parametrize(
    "case",
    [case for case in reference.CASES if case.run_config.get("strategy") not in STATELESS],
    ids=lambda case: case.name,
)
async def test_same_result_after_the_aggregator_died(case: reference.Case, tmp_path: Path) -> None:
    """Another goes on in the middle, whatever the app does with the Grid; what it writes is the same."""
    visit = 1 if case.name in ONE_BATCH else 2
    await _compare(case, tmp_path, dies_at={"aggregator.batch-sent": visit})
    visits = tmp_path / "hanse" / "failpoints" / "aggregator.batch-sent.visits"
    assert visits.stat().st_size >= visit, "it was killed there"


async def _compare(case: reference.Case, tmp_path: Path, dies_at: dict[str, int] | None = None) -> None:
    configs = case.node_configs()
    nodes = [
        reference.NodeSpec(
            hanse_host.node_id(site), config, joins_after_calls=2 * (site >= case.nodes - case.late)
        )
        for site, config in enumerate(configs)
    ]
    defaults = app_config.load(case.directory).defaults
    complete = app_config.merge(defaults, case.run_config)
    want = reference.read_result(
        reference.run_reference(case.directory, nodes, complete, tmp_path / "reference", case.strategy)
    )
    ran = await hanse_host.run(
        case.directory,
        configs,
        case.run_config,
        tmp_path / "hanse",
        strategy=case.strategy,
        late=case.late,
        dies_at=dies_at,
    )
    got = reference.read_result(ran) if case.strategy is None else _model(tmp_path / "hanse" / "models")
    assert got == want
    assert want, "the app wrote no result"


def _model(store: Path) -> dict[str, Any]:
    """The stored model, in the form of `read_result`: an app without a ServerApp writes nothing itself."""
    (file,) = store.rglob("model.safetensors")
    arrays = safetensors.numpy.load_file(file)
    return {
        "arrays": {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()}
    }
