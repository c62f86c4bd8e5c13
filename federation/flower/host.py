"""Being the process that a Flower app runs in: the few things below Flower's public surface.

One app per process: Flower keeps the running task's identity process-wide, and an app's modules have
only one sys.modules. Which app, which messages and where logs end is decided elsewhere; grids and
strategies are not known here.

Telemetry is off before flwr is imported: federation/flower/__init__.py says how.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import pathlib
import random
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from flwr.app import Context, RecordDict
from flwr.app.exception import AppExitException
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp
from flwr.supercore import telemetry
from flwr.supercore.exit.exit_code import EXIT_CODE_HELP, ExitCode
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.object_ref import load_app
from flwr.supercore.run import Run as Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID: Final = 1
"""The node id of a ServerApp, as the SuperLink's; Flower's legacy start_grid takes no other."""

SYSTEM_MESSAGE_TYPE: Final = "system"
"""The type of an error reply that no node made: its ERROR_EXPIRED has it, with an empty group id."""

UserConfig = dict[str, bool | float | int | str]

# Codes of error replies, as apps expect them.
ERROR_UNKNOWN: Final = ErrorCode.UNKNOWN
ERROR_APP_NOT_LOADED: Final = ErrorCode.LOAD_CLIENT_APP_EXCEPTION
ERROR_APP_RAISED: Final = ErrorCode.CLIENT_APP_RAISED_EXCEPTION  # reason: the exception's type and text
ERROR_EXPIRED: Final = ErrorCode.MESSAGE_UNAVAILABLE  # the message's time-to-live has passed
ERROR_REPLY_UNAVAILABLE: Final = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
ERROR_NODE_GONE: Final = ErrorCode.NODE_UNAVAILABLE
ERROR_MOD_REFUSED: Final = ErrorCode.MOD_FAILED_PRECONDITION
ERROR_APP_INVALID: Final = ErrorCode.INVALID_FAB
ERROR_APP_CRASHED: Final = ErrorCode.CLIENT_APP_CRASHED  # the process died

ERROR_MEANINGS: Final[Mapping[int, str]] = {
    ERROR_UNKNOWN: "an unknown error",
    ERROR_APP_NOT_LOADED: "the client app could not be loaded",
    ERROR_APP_RAISED: "the client app raised an exception",
    ERROR_EXPIRED: "the message's time-to-live passed before it was answered",
    ERROR_REPLY_UNAVAILABLE: "the reply's time-to-live passed before it was read",
    ERROR_NODE_GONE: "the node is gone",
    ERROR_MOD_REFUSED: "a client mod refused the message",
    ERROR_APP_INVALID: "the app bundle is invalid",
    ERROR_APP_CRASHED: "the client app's process died",
}


class AppNotLoadable(Exception):
    """An app's reference does not lead to a ServerApp or ClientApp."""

    def __init__(self, reference: str, module: str, last_line: str) -> None:
        """Name the reference, the module at fault (one that is missing, or the app's) and the last line."""
        super().__init__(f"app {reference!r} cannot be loaded from module {module!r}: {last_line}")
        self.reference, self.module, self.last_line = reference, module, last_line


class _InvalidReference(Exception):
    """What Flower's loader is asked to raise for a reference that leads nowhere."""


@dataclasses.dataclass(frozen=True, slots=True)
class AppExit:
    """Why an app ended itself: Flower's exit code and name, its advice, and the app's own words."""

    code: int
    name: str
    help: str
    message: str


def prepare_process(run_id: int, node_id: int, task_id: int = 1, home: pathlib.Path | None = None) -> None:
    """Make this process the one of a run's node, as Message() and Flower's legacy server need it.

    home: where Flower may keep files of its own, instead of the user's home directory.
    """
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # in case that flwr was imported before this package
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    if home is not None:
        os.environ["FLWR_HOME"] = str(home)
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


def seed(number: int) -> None:
    """Seed the process's random generators, so that an app which runs again draws what it drew before.

    An app that seeds them itself, or has generators of its own, is not affected.
    """
    random.seed(number)
    np.random.seed(number % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)


def load_server_app(reference: str, directory: pathlib.Path | None) -> ServerApp:
    """Load `module:attribute` from an app's directory (or, if None, from what is installed).

    Raises: AppNotLoadable(reference, module, last_line).
    """
    app = _load(reference, directory)
    if not isinstance(app, ServerApp):
        raise AppNotLoadable(reference, _module(reference), f"it is a {type(app).__name__}, not a ServerApp")
    return app


def load_client_app(reference: str, directory: pathlib.Path | None) -> ClientApp:
    """Load `module:attribute` from an app's directory (or, if None, from what is installed).

    Raises: AppNotLoadable(reference, module, last_line).
    """
    app = _load(reference, directory)
    if not isinstance(app, ClientApp):
        raise AppNotLoadable(reference, _module(reference), f"it is a {type(app).__name__}, not a ClientApp")
    return app


def _module(reference: str) -> str:
    return reference.partition(":")[0]


def _load(reference: str, directory: pathlib.Path | None) -> object:
    try:
        # An app's imports may do anything, sys.exit included; whatever stops them is the app's fault.
        app = load_app(reference, _InvalidReference, directory)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except _InvalidReference as error:
        raise AppNotLoadable(reference, _module(reference), str(error).strip().splitlines()[0]) from error
    except BaseException as error:
        module = error.name if isinstance(error, ModuleNotFoundError) and error.name else _module(reference)
        last_line = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AppNotLoadable(reference, module, last_line) from error
    # QFedAvg and Bulyan look for garbage at every reply: 50 ms, were all that is loaded looked through.
    gc.freeze()
    return app


def make_context(
    run_id: int,
    node_id: int,
    node_config: Mapping[str, Any],
    run_config: Mapping[str, Any],
    state: RecordDict | None = None,
) -> Context:
    """Return the Context that an app is called with; a node without a state yet gets an empty one."""
    return Context(
        run_id=run_id,
        node_id=node_id,
        node_config=dict(node_config),
        state=RecordDict() if state is None else state,
        run_config=dict(run_config),
    )


def make_run(
    run_id: int,
    *,
    fab_id: str = "",
    fab_version: str = "",
    fab_hash: str = "",
    override_config: Mapping[str, Any] | None = None,
) -> Run:
    """Return the description of a run that `Grid.run` gives to apps."""
    run = Run.create_empty(run_id)
    run.fab_id, run.fab_version, run.fab_hash = fab_id, fab_version, fab_hash
    run.override_config = dict(override_config or {})
    return run


def is_legacy(app: ServerApp) -> bool:
    """Whether the app uses Flower's older API (server_fn or a Strategy): one message at a time."""
    return app._main is None


def redirect_logging(*handlers: logging.Handler, level: int = logging.INFO) -> None:
    """Send what Flower and apps write to Flower's logger to `handlers`, and nowhere else."""
    FLOWER_LOGGER.handlers[:] = handlers
    FLOWER_LOGGER.setLevel(level)
    FLOWER_LOGGER.propagate = False


def app_exit(error: BaseException) -> AppExit | None:
    """Return why an app ended itself, or None if `error` is an ordinary exception.

    Known codes of ServerApps: 200, replies that cannot be aggregated, or a privacy budget that is used up;
    202, the aggregation failed.
    """
    if not isinstance(error, AppExitException):
        return None
    names = {value: name for name, value in vars(ExitCode).items() if isinstance(value, int)}
    code = int(error.exit_code)
    name = names.get(code, type(error).__name__)
    return AppExit(code=code, name=name, help=EXIT_CODE_HELP.get(code, ""), message=str(error))
