"""Whether an app's components import, found out before anything starts.

An app is someone's code: importing it may raise, hang, print, fork or exit. So a child process imports
it, with a time limit and its own process group, in a scratch directory, writing no bytecode into
the user's directory. The parent learns the module at fault and the last line of the traceback.

Run as `python -m federation.apps.probe DIRECTORY FILE REFERENCE...` this module is that child; it
writes one JSON object to FILE. It knows nothing of Flower beyond the form `module:attribute`.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence

MAXIMUM_REASON_CHARACTERS = 500  # one line for a person; a traceback's last line is rarely longer


@dataclasses.dataclass(frozen=True)
class ImportFailure:
    """A component that cannot be loaded.

    `module` is the module at fault: the app's innermost one in the traceback, else that of the reference.
    `reason` is one line: the last line of the traceback, or what happened instead. `missing` is the module
    that was not found, empty when another thing failed.
    """

    reference: str
    module: str
    reason: str
    missing: str = ""
    imported: bool = False  # it imports, and is something else than it should be

    def __str__(self) -> str:
        return f"{self.reference} {'is not usable' if self.imported else 'does not import'}: {self.reason}"


def check(
    directory: pathlib.Path,
    references: Sequence[str],
    *,
    limit_seconds: float,
    kinds: Mapping[str, str] | None = None,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> ImportFailure | None:
    """Import each reference in one child process; return the first that fails, None if all load.

    `directory` goes first on the child's path, as Flower does. `kinds` names, for some references, the Flower
    class that they must be an instance of (ClientApp, ServerApp). The call blocks for at most
    `limit_seconds` and a moment; nothing that the child started in its group outlives it.
    """
    if not references:
        return None
    with tempfile.TemporaryDirectory(prefix="hanse-probe-") as scratch:
        answer = pathlib.Path(scratch, "answer.json")
        work = pathlib.Path(scratch, "work")
        work.mkdir()
        command = [
            python,
            "-P",
            "-m",
            "federation.apps.probe",
            str(directory.resolve()),
            str(answer),
            *(f"{reference}={(kinds or {}).get(reference, '')}" for reference in references),
        ]
        child = subprocess.Popen(
            command,
            cwd=work,
            env=_environment(work, os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return _read(answer, references, code, limit_seconds)


def _environment(work: pathlib.Path, inherited: Mapping[str, str]) -> dict[str, str]:
    root = str(pathlib.Path(__file__).resolve().parents[2])
    path = inherited.get("PYTHONPATH")
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([root, path] if path else [root]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(work),
    }


def _read(
    answer: pathlib.Path, references: Sequence[str], code: int | None, limit_seconds: float
) -> ImportFailure | None:
    try:
        found = json.loads(answer.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        found = {}
    if code == 0 and found.get("loaded") == len(references):
        return None
    if "reason" in found:
        return ImportFailure(**found)
    reference = references[min(int(found.get("loaded", 0)), len(references) - 1)]
    if code is None:
        reason = f"still importing after {limit_seconds:g} s"
    elif code < 0:
        reason = f"the interpreter was ended by signal {-code} while importing"
    else:
        reason = f"the interpreter exited with code {code} while importing"
    return ImportFailure(reference=reference, module=reference.partition(":")[0], reason=reason)


def main(arguments: Sequence[str]) -> int:
    """Import the references one by one and write what happened; the child's whole life."""
    directory, answer, references = arguments[0], pathlib.Path(arguments[1]), arguments[2:]
    sys.path.insert(0, directory)
    for loaded, wanted in enumerate(references):
        reference, _, kind = wanted.partition("=")
        _write(answer, {"loaded": loaded})
        module, _, attributes = reference.partition(":")
        try:
            value = importlib.import_module(module)
            for attribute in attributes.split("."):
                if not hasattr(value, attribute):
                    reason = f"{module} has no {attributes}"
                    _write(answer, {**_failure(reference, reason), "imported": True})
                    return 1
                value = getattr(value, attribute)
            if kind and not _is_a(value, kind):
                reason = f"it is a {type(value).__name__}, not a {kind}"
                _write(answer, {**_failure(reference, reason), "imported": True})
                return 1
        except SystemExit as error:
            _write(answer, _failure(reference, f"it calls exit({error.code!r}) while importing"))
            return 1
        except BaseException as error:  # whatever a user's module raises is the answer
            missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
            at_fault = _module_at_fault(error, pathlib.Path(directory)) or module
            failure = {**_failure(reference, _last_line(error)), "missing": missing, "module": at_fault}
            _write(answer, failure)
            return 1
    _write(answer, {"loaded": len(references)})
    return 0


def _is_a(value: object, kind: str) -> bool:
    """Whether a value is an instance of one of Flower's classes, by name: Flower is not imported here."""
    return any(
        cls.__name__ == kind and cls.__module__.partition(".")[0] == "flwr" for cls in type(value).__mro__
    )


def _failure(reference: str, reason: str) -> dict[str, str]:
    return {"reference": reference, "module": reference.partition(":")[0], "reason": reason}


def _module_at_fault(error: BaseException, directory: pathlib.Path) -> str:
    """The innermost module of the app that the error passed through; empty if none did."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        files.append(error.filename or "")
    for file in map(pathlib.Path, reversed(files)):
        if file.is_relative_to(directory):
            parts = file.relative_to(directory).with_suffix("").parts
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return ""


def _last_line(error: BaseException) -> str:
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return lines[-1].strip()[:MAXIMUM_REASON_CHARACTERS] if lines else type(error).__name__


def _write(path: pathlib.Path, value: Mapping[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Threads that the app's modules started must not keep the child alive.
    os._exit(code)
