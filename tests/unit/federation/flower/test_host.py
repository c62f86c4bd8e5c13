"""Being the process of a Flower app."""

import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.supercore import telemetry
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.task_identity import TaskIdentity

from federation.flower import host


@pytest.fixture
def app_directory(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def identity() -> Iterator[None]:
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    home = os.environ.get("FLWR_HOME")
    yield
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
    if home is None:
        os.environ.pop("FLWR_HOME", None)
    else:
        os.environ["FLWR_HOME"] = home


def test_messages_can_be_made_in_a_prepared_process(identity: None, tmp_path: pathlib.Path) -> None:
    """Message() knows run, node and task; telemetry is off; Flower's files go where they were sent."""
    host.prepare_process(run_id=5, node_id=host.SERVER_NODE_ID, task_id=9, home=tmp_path)
    metadata = Message(RecordDict(), 2**64 - 1, "train").metadata
    assert (metadata.run_id, metadata.src_node_id, metadata.src_task_id) == (5, 1, 9)
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_HOME"] == str(tmp_path)


def test_telemetry_is_off_wherever_this_package_comes_first() -> None:
    """flwr reads the variable once, while it is imported; by then it is set."""
    code = (
        "import federation.flower.host\n"
        "from flwr.supercore import telemetry\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "FLWR_TELEMETRY_ENABLED"}
    root = str(pathlib.Path(host.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


GOOD_APP = """
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
class Holder:
    client = ClientApp()
client, server, holder = ClientApp(), ServerApp(), Holder()
"""


def test_apps_are_loaded_from_their_directory(app_directory: pathlib.Path) -> None:
    """A reference leads to the object, attributes of attributes too."""
    (app_directory / "good_app_for_host.py").write_text(GOOD_APP)
    module = "good_app_for_host"
    client = host.load_client_app(f"{module}:client", app_directory)
    assert host.load_client_app(f"{module}:client", None) is client
    assert host.load_server_app(f"{module}:server", app_directory) is sys.modules[module].server
    assert host.load_client_app(f"{module}:holder.client", app_directory) is sys.modules[module].holder.client


@pytest.mark.parametrize(
    "source, attribute, want_module, want_line",
    [
        pytest.param(
            "import no_such_library.sub",
            "app",
            "no_such_library",
            "No module named 'no_such_library'",
            id="missing",
        ),
        pytest.param("x = 1 / 0", "app", "broken_app", "ZeroDivisionError: division by zero", id="raises"),
        pytest.param("def f(:\n", "app", "broken_app", "SyntaxError", id="syntax"),
        pytest.param("raise SystemExit(3)", "app", "broken_app", "SystemExit: 3", id="exits"),
        pytest.param("x = 1", "app", "broken_app", "Unable to load attribute app", id="no attribute"),
        pytest.param("app = 1", "app", "broken_app", "it is a int, not a ServerApp", id="another thing"),
        pytest.param("app = 1", "", "broken_app", "Missing attribute", id="no attribute named"),
    ],
)
def test_an_app_that_does_not_load_says_why(
    app_directory: pathlib.Path, source: str, attribute: str, want_module: str, want_line: str
) -> None:
    """The error names the reference, the module at fault and the last line."""
    (app_directory / "broken_app.py").write_text(source)
    with pytest.raises(host.AppNotLoadable) as caught:
        host.load_server_app(f"broken_app:{attribute}", app_directory)
    assert caught.value.reference == f"broken_app:{attribute}"
    assert caught.value.module == want_module
    assert want_line in caught.value.last_line
    assert "\n" not in caught.value.last_line


def test_a_missing_app_module_is_named(app_directory: pathlib.Path) -> None:
    """No such module at all."""
    with pytest.raises(host.AppNotLoadable) as caught:
        host.load_client_app("no_such_app:app", app_directory)
    assert caught.value.module == "no_such_app"


def test_a_context_is_made_of_copies() -> None:
    """What an app does to its configuration stays with the app; a state is kept as it is."""
    node_config, state = {"partition-id": 1}, RecordDict()
    context = host.make_context(5, 7, node_config, {"lr": 0.1}, state)
    context.node_config["partition-id"] = 2
    assert node_config == {"partition-id": 1}
    assert context.state is state
    assert (context.run_id, context.node_id, context.run_config) == (5, 7, {"lr": 0.1})
    assert len(host.make_context(5, 7, {}, {}).state) == 0


def test_a_run_has_its_id_and_overrides() -> None:
    """Grid.run is what apps see of a run."""
    run = host.make_run(5, fab_id="me/app", fab_version="1.0", fab_hash="abc", override_config={"lr": 1})
    assert (run.run_id, run.fab_id, run.fab_version, run.fab_hash) == (5, "me/app", "1.0", "abc")
    assert run.override_config == {"lr": 1}


def test_error_codes_all_have_a_meaning() -> None:
    """Every code that Flower knows can be explained."""
    codes = {value for name, value in vars(host.ErrorCode).items() if isinstance(value, int)}
    assert codes == host.ERROR_MEANINGS.keys()


def test_flower_s_log_goes_where_it_is_sent() -> None:
    """The handlers given are the only ones."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    before = (list(FLOWER_LOGGER.handlers), FLOWER_LOGGER.level, FLOWER_LOGGER.propagate)
    try:
        host.redirect_logging(Collector())
        FLOWER_LOGGER.info("hello %s", "there")
        FLOWER_LOGGER.debug("too detailed")
    finally:
        FLOWER_LOGGER.handlers[:], FLOWER_LOGGER.propagate = before[0], before[2]
        FLOWER_LOGGER.setLevel(before[1])
    assert [record.getMessage() for record in records] == ["hello there"]


@pytest.mark.parametrize(
    "error, want_code, want_name",
    [
        (InconsistentMessageReplies("keys differ"), 200, "SERVERAPP_STRATEGY_PRECONDITION_UNMET"),
        (AggregationError("no majority"), 202, "SERVERAPP_STRATEGY_AGGREGATION_ERROR"),
    ],
)
def test_exits_of_apps_are_told_apart(error: Exception, want_code: int, want_name: str) -> None:
    """Flower's exit codes become reasons, with its advice and the app's words."""
    got = host.app_exit(error)
    assert got is not None
    assert (got.code, got.name, got.message) == (want_code, want_name, str(error))
    assert got.help
    assert host.app_exit(ValueError("x")) is None
