"""The round machine tells the stories that were reviewed."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("golden_regenerate", HERE / "regenerate.py")
assert _spec is not None
assert _spec.loader is not None
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)


@pytest.mark.parametrize("scenario", regenerate.SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_story_is_the_reviewed_one(scenario):
    """A scripted federation gets, line by line, the instructions that were reviewed."""
    assert scenario().text == regenerate.path_of(scenario).read_text(encoding="utf-8"), (
        "review the difference, then run python tests/golden/regenerate.py"
    )


def test_every_log_has_its_scenario():
    """No log is left behind by a scenario that is gone."""
    assert {p.name for p in HERE.glob("*.txt")} == {regenerate.path_of(s).name for s in regenerate.SCENARIOS}
