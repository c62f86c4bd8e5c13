"""docs/promises.md names tests that exist, and its checker notices when it does not."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def promises() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promises", ROOT / "tests/tools/promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["promises"] = module
    spec.loader.exec_module(module)
    return module


def table(shown_by: str) -> str:
    return (
        "| promise | where promised | shown by | last figure |\n"
        "| --- | --- | --- | --- |\n"
        f"| keys stay | 3 | {shown_by} | 1 s |\n"
    )


def test_the_page_names_only_what_exists(promises: ModuleType) -> None:
    """Every test and command that docs/promises.md names is there."""
    rows = promises.read((ROOT / "docs/promises.md").read_text())
    assert rows
    assert promises.problems(rows) == []


@pytest.mark.parametrize(
    ("shown_by", "want"),
    [
        ("`tests/unit/test_promises.py::test_the_page_names_only_what_exists`", []),
        ("`tests/unit/test_promises.py`", []),
        ("`make bench`", []),
        ("`hanse lab up --edges 3`", []),
        ("not yet", []),
        ("`tests/unit/test_promises.py::test_gone`", ["there is no test"]),
        ("`tests/unit/test_gone.py`", ["there is no test"]),
        ("`README.md`", ["there is no test"]),
        ("`make coffee`", ["no target coffee"]),
        ("`hanse lab sink`", ["no command"]),
        ("`hanse lab up --sails 3`", ["no command"]),
        ("soon", ["names neither"]),
    ],
)
def test_a_row_is_judged_by_what_it_names(promises: ModuleType, shown_by: str, want: list[str]) -> None:
    """A row passes if all that it names exists, or if it says that nothing shows it yet."""
    found = promises.problems(promises.read(table(shown_by)))
    assert len(found) == len(want)
    assert all(part in sentence for part, sentence in zip(want, found, strict=True))


def test_open_promises_are_counted(promises: ModuleType) -> None:
    """A promise that nothing shows is an open one."""
    assert [row.is_open for row in promises.read(table("not yet") + table("`make test`"))] == [True, False]


def test_tables_of_other_shapes_are_left_alone(promises: ModuleType) -> None:
    """Only tables with the promises' heading are read."""
    assert promises.read("| a | b |\n| --- | --- |\n| 1 | 2 |\n") == []


def test_a_row_cut_off_from_its_table_is_not_overlooked(promises: ModuleType) -> None:
    """An empty line within a table would hide all rows below it."""
    whole = table("not yet")
    assert len(promises.read(whole + "| b | here | not yet | |\n")) == 2
    with pytest.raises(ValueError, match="belongs to no table"):
        promises.read(whole + "\n| b | here | not yet | |\n")
