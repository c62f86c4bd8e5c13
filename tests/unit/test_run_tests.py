"""`make test` runs what the machine can, fast things first, and leaves nothing out without a word."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LACKING = ("kube-apiserver", "kubelet")
NO_SERVER = "no etcd"
NO_ROOT = "no lab can run on this machine: a bare lab needs root"
FIRST, SERVER, LABS, FEDERATIONS = (
    "tests without clusters",
    "tests on a real API server",
    "tests on real clusters",
    "tests of federations on real clusters",
)
BUILD = (
    "2 programs of a cluster are not in the cache and making them may take 25 minutes. "
    "To include them: make test CLUSTERS=1"
)
NOT_WANTED = "Left out: the tests marked cluster, for CLUSTERS=0 was given. To include them: make test"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "tests/tools/run_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_tests"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("found", "options", "want_parts", "want_made", "want_left_out"),
    [
        pytest.param({}, {}, (FIRST, SERVER, LABS, FEDERATIONS), False, (), id="everything is there"),
        pytest.param(
            {"no_api_server": NO_SERVER, "lacking": LACKING}, {},
            (FIRST, SERVER, LABS, FEDERATIONS), True, (), id="nothing is in the cache",
        ),
        pytest.param(
            {"lacking": LACKING}, {}, (FIRST, SERVER, LABS, FEDERATIONS), True, (),
            id="an API server from elsewhere",
        ),
        pytest.param(
            {"no_api_server": NO_SERVER, "lacking": LACKING}, {"clusters": "0"}, (FIRST,), False,
            (f"Left out: the tests marked controlplane, for {BUILD}", NOT_WANTED),
            id="nothing is in the cache, and clusters are not wanted",
        ),
        pytest.param(
            {"no_lab": NO_ROOT, "no_api_server": NO_SERVER, "lacking": LACKING}, {"clusters": "1"},
            (FIRST, SERVER), True, (f"Left out: the tests marked cluster, for {NO_ROOT}",),
            id="not root, and an API server asked for",
        ),
        pytest.param(
            {"no_api_server": NO_SERVER, "lacking": LACKING}, {"in_ci": True, "clusters": "0"},
            (FIRST, SERVER, LABS, FEDERATIONS), True, (), id="CI leaves nothing out",
        ),
        pytest.param(
            {"no_lab": NO_ROOT}, {"clusters": "1"}, (FIRST, SERVER), False,
            (f"Left out: the tests marked cluster, for {NO_ROOT}",), id="not root",
        ),
        pytest.param(
            {"no_lab": NO_ROOT, "no_api_server": NO_SERVER, "lacking": LACKING}, {}, (FIRST,), False,
            (
                f"Left out: the tests marked controlplane, for {BUILD}",
                f"Left out: the tests marked cluster, for {NO_ROOT}",
            ), id="neither root nor programs",
        ),
        pytest.param(
            {"lacking_before": LACKING}, {}, (FIRST, SERVER, LABS, FEDERATIONS), True, (),
            id="one minor of Kubernetes is there",
        ),
        pytest.param(
            {"lacking_before": LACKING}, {"in_ci": True}, (FIRST, SERVER, LABS, FEDERATIONS), True, (),
            id="CI makes both minors",
        ),
        pytest.param(
            {}, {"clusters": "0"}, (FIRST, SERVER), False, (NOT_WANTED,), id="not wanted",
        ),
        pytest.param(
            {"no_lab": "this is Darwin", "no_api_server": NO_SERVER}, {"in_ci": True}, (FIRST,), False,
            (
                f"Left out: the tests marked controlplane, for {NO_SERVER}",
                "Left out: the tests marked cluster, for this is Darwin",
            ), id="another system",
        ),
    ],
)  # fmt: skip
def test_what_runs_and_what_is_said_of_the_rest(
    tool: ModuleType, found: dict, options: dict, want_parts: tuple, want_made: bool, want_left_out: tuple
) -> None:
    """The parts in their order, whether programs are made, and one line on what is left out."""
    made = tool.plan(tool.Findings(**found), **options)
    assert tuple(part.title for part in made.parts) == want_parts
    assert (made.make_programs, made.left_out) == (want_made, want_left_out)


def test_every_directory_with_tests_is_in_a_part(tool: ModuleType) -> None:
    """None is forgotten because it is new; the fast ones come first."""
    parts = tool.plan(tool.Findings()).parts
    named = {argument for part in parts for argument in part.arguments if argument.startswith("tests/")}
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert any(path.is_relative_to(ROOT / place) for place in named), path
    assert parts[0].arguments[2:6] == tool.FAST


def test_the_first_parts_choose_no_test_twice(tool: ModuleType) -> None:
    """Markers divide them: what needs an API server is not in the first part."""
    (first, server, *_) = tool.plan(tool.Findings()).parts
    assert first.arguments[1] == "not torch and not controlplane and not cluster"
    assert server.arguments[1] == "controlplane and not torch"


def test_torch_in_pods_is_with_the_federations(tool: ModuleType) -> None:
    """Where it is wanted; else it is left out there, as make says of all tests marked so."""
    assert tool.plan(tool.Findings()).parts[-1].arguments == ("-m", "not torch", tool.APART)
    assert tool.plan(tool.Findings(), torch=True).parts[-1].arguments == (tool.APART,)


def test_what_runs_beside_the_first_part_is_shown_afterwards(
    tool: ModuleType, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """All of it, in its order, and one part that fails hides nothing of the others."""
    parts = [tool.Part("a wrong option", ("--no-such-option",)), tool.Part("a version", ("--version",))]
    beside = tool.Beside(parts, (), make_programs=False)
    beside.start()
    results = beside.shown()
    said = capfdbinary.readouterr().out.decode()
    assert [(result.title, result.status) for result in results] == [("a wrong option", 4), ("a version", 0)]
    assert results[0].line.endswith(" min, failed")
    assert (
        said.index("--no-such-option")
        < said.index("--- a version")
        < said.index(f"pytest {pytest.__version__}")
    )


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ([], "Left out: the tests marked torch, those of clients with torch in pods among them, which need"),
        (["TORCH=1"], "test-torch"),
        (["CI=true"], "test-torch"),
        ([], '--torch "0"'),
        (["CI=true"], '--torch "1"'),
    ],
)
def test_make_says_what_of_torch_is_left_out(given: list[str], want: str) -> None:
    """At home the line, which names those in pods, too; in CI or when asked for, the tests."""
    command = ["make", "-n", "test", "CI=", *given]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert want in said
    assert "run_tests.py" in said
