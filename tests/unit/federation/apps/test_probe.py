"""A component that cannot be imported is named before anything starts."""

import pathlib
import subprocess
import sys

import pytest

from federation.apps import probe

LIMIT_SECONDS = 60  # far above what an import of nothing takes: a slow machine must not decide


@pytest.fixture
def app(tmp_path: pathlib.Path) -> pathlib.Path:
    """An app directory with one module for each way to fail."""
    modules = {
        "good": "class wrapper:\n    app = 1\nprint('noise')",
        "raises": "raise ValueError('two\\nlines here')",
        "absent": "import no_such_module_of_ours.part",
        "syntax": "def (:",
        "exits": "import sys; sys.exit(3)",
        "dies": "import os; os._exit(7)",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "hangs": "import threading; threading.Event().wait()",
        "threads": "import threading\nthreading.Thread(target=threading.Event().wait).start()\napp = 1",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_all_load(app: pathlib.Path) -> None:
    """Loading works, and nothing is written into the app's directory."""
    before = sorted(app.rglob("*"))
    assert probe.check(app, ["good:wrapper.app", "threads:app"], limit_seconds=LIMIT_SECONDS) is None
    assert sorted(app.rglob("*")) == before


def test_nothing_asked() -> None:
    """No component, no child process."""
    assert probe.check(pathlib.Path("/nowhere"), [], limit_seconds=1, python="/no/python") is None


@pytest.mark.parametrize(
    ("reference", "want_reason", "want_missing"),
    [
        ("raises:app", "lines here", ""),
        (
            "absent:app",
            "ModuleNotFoundError: No module named 'no_such_module_of_ours'",
            "no_such_module_of_ours",
        ),
        ("nowhere:app", "ModuleNotFoundError: No module named 'nowhere'", "nowhere"),
        ("syntax:app", "SyntaxError: invalid syntax", ""),
        ("exits:app", "it calls exit(3) while importing", ""),
        ("dies:app", "the interpreter exited with code 7 while importing", ""),
        ("killed:app", "the interpreter was ended by signal 9 while importing", ""),
    ],
)
def test_failures(app: pathlib.Path, reference: str, want_reason: str, want_missing: str) -> None:
    """Each way to fail comes back as one line with the module at fault."""
    want = probe.ImportFailure(reference, reference.split(":")[0], want_reason, want_missing)
    assert probe.check(app, ["threads:app", reference], limit_seconds=LIMIT_SECONDS) == want
    assert str(want) == f"{reference} does not import: {want_reason}"


def test_a_component_that_is_not_there(app: pathlib.Path) -> None:
    """The module imports, and has nothing of this name."""
    failure = probe.check(app, ["good:wrapper.other"], limit_seconds=LIMIT_SECONDS)
    assert str(failure) == "good:wrapper.other is not usable: good has no wrapper.other"


def test_the_module_at_fault_is_the_innermost_of_the_app(app: pathlib.Path) -> None:
    """Whoever imports a module that does not import is not the one to mend."""
    (app / "inner").mkdir()
    (app / "inner" / "__init__.py").touch()
    (app / "inner" / "data.py").write_text("import json\njson.loads('{')\n")
    (app / "outer.py").write_text("from inner import data\n")
    failure = probe.check(app, ["outer:app"], limit_seconds=LIMIT_SECONDS)
    assert failure is not None
    assert (failure.reference, failure.module) == ("outer:app", "inner.data")


def test_a_hanging_import_ends(app: pathlib.Path) -> None:
    """An import that never ends is ended at the limit."""
    failure = probe.check(app, ["hangs:app"], limit_seconds=0.5)
    assert failure is not None
    assert failure.reason == "still importing after 0.5 s"
    assert failure.module == "hangs"


def test_the_package_does_not_import_flower() -> None:
    """Asking about an app must not cost Flower's import."""
    code = (
        "import sys; from federation.apps import bundle, config, errors, probe; "
        "sys.exit(any(name.partition('.')[0] in {'flwr', 'grpc', 'numpy'} for name in sys.modules))"
    )
    root = pathlib.Path(probe.__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_something_else_than_a_component(app: pathlib.Path) -> None:
    """What imports and is no ClientApp is told apart from what does not import."""
    failure = probe.check(
        app, ["threads:app"], kinds={"threads:app": "ClientApp"}, limit_seconds=LIMIT_SECONDS
    )

    assert failure is not None
    assert str(failure).startswith("threads:app is not usable: it is a ")
    assert str(failure).endswith(", not a ClientApp")
