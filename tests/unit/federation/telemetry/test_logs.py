"""Every line is one JSON object with the same fields, and no secret is in it."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.telemetry import logs

Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log of a process named `tester`, at info."""
    stream = io.StringIO()
    logs.configure("tester", level="info", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.reset()


def test_a_line_says_when_what_who_and_how_grave(lines: Lines) -> None:
    """Timestamp, event, process, level and logger are on every line, beside its own fields."""
    logs.get_logger("edge_agent.link").info("session opened", address="127.0.0.1:1")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "session opened",
        "address": "127.0.0.1:1",
        "process": "tester",
        "level": "info",
        "logger": "edge_agent.link",
    }


def test_lower_levels_are_dropped(lines: Lines) -> None:
    """At info, debug lines do not appear."""
    logs.get_logger("a").debug("detail")
    assert lines() == []


def test_an_unknown_level_is_refused() -> None:
    """The error names the known levels."""
    with pytest.raises(ValueError, match="unknown log level 'loud', known are debug, info, warning"):
        logs.configure("tester", level="loud")


def test_standard_logging_takes_the_same_way(lines: Lines) -> None:
    """A library's record comes out as the same kind of line."""
    logging.getLogger("grpc._cython").warning("lost %s", "peer")
    (line,) = lines()
    assert line["event"] == "lost peer"
    assert line["logger"] == "grpc._cython"
    assert line["process"] == "tester"


def test_a_library_with_its_own_handler_is_adopted(lines: Lines) -> None:
    """After adopt, a self-handling logger writes once, and through our way out."""
    theirs = io.StringIO()
    library = logging.getLogger("selfhandling")
    library.addHandler(logging.StreamHandler(theirs))
    library.propagate = False
    logs.adopt("selfhandling")
    library.warning("hello")
    assert theirs.getvalue() == ""
    assert [line["event"] for line in lines()] == ["hello"]


def test_bound_fields_are_on_every_line_of_the_process(lines: Lines) -> None:
    """What is bound once is there in other threads too, and for standard logging."""
    logs.bind(cluster="zurich", training="cardiology/hospitals")
    thread = threading.Thread(target=logging.getLogger("flwr").warning, args=("from a thread",))
    thread.start()
    thread.join()
    logs.get_logger("a").info("from here")
    assert [(line["cluster"], line["training"]) for line in lines()] == [
        ("zurich", "cardiology/hospitals")
    ] * 2


def test_scoped_fields_end_with_the_scope(lines: Lines) -> None:
    """A scope's fields are on the lines inside it only, and win over the process's."""
    logs.bind(cluster="zurich")
    log = logs.get_logger("a")
    with logs.scope(round=3, cluster="budapest"):
        log.info("inside")
    log.info("outside")
    inside, outside = lines()
    assert (inside["round"], inside["cluster"]) == (3, "budapest")
    assert "round" not in outside
    assert outside["cluster"] == "zurich"


@pytest.mark.parametrize(
    "key", ["token", "join_token", "secret", "key_pem", "private_key", "password", "Authorization"]
)
def test_a_secret_field_is_never_written(lines: Lines, key: str) -> None:
    """A field with a secret's name is redacted, at any depth."""
    logs.get_logger("a").info("made", **{key: "hunter2"}, config={"inner": [{key: "hunter2"}]})
    (line,) = lines()
    assert "hunter2" not in json.dumps(line)
    assert line[key] == logs.REDACTED


@pytest.mark.parametrize("key", ["token_id", "secret_name", "tokens", "key"])
def test_names_of_secrets_are_no_secrets(lines: Lines, key: str) -> None:
    """A field that names a secret without being one is written."""
    logs.get_logger("a").info("made", **{key: "visible"})
    assert lines()[0][key] == "visible"


def test_secrets_are_known_by_their_shape(lines: Lines) -> None:
    """A join token or a private key in any text, also a library's and a traceback's, is redacted."""
    token = "hanse_k3v9.abcdefghijklmnop"
    key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"
    logging.getLogger("lib").warning("got %s and %s", token, key)
    try:
        raise RuntimeError(f"cannot use {token}")
    except RuntimeError:
        logs.get_logger("a").exception("failed", detail=key)
    text = json.dumps(lines())
    assert "abcdefghijklmnop" not in text
    assert "MHcCAQEE" not in text
    assert "hanse_k3v9" in text
    assert "RuntimeError" in lines()[1]["exception"]


def test_payloads_are_written_as_their_size(lines: Lines) -> None:
    """Bytes are never written, only how many there were."""
    logs.get_logger("a").info("received", payload=b"\x00" * 5)
    assert lines()[0]["payload"] == "[5 bytes]"


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda key: key not in {"event", "exc_info", "stack_info"}),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.binary()
            | st.complex_numbers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers()),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_any_field_makes_one_line_of_strict_json(fields: dict[str, Any]) -> None:
    """Whatever the fields hold, the line is one line, and JSON without NaN."""
    cleaned = logs.redact(None, "info", dict(fields))
    text = json.dumps(cleaned, allow_nan=False)
    assert "\n" not in text


def test_a_terminal_gets_readable_lines() -> None:
    """On a terminal a line is for people: no JSON, same content, still no secrets."""
    stream = Terminal()
    logs.configure("tester", stream=stream)
    try:
        logs.get_logger("a").info("joined", cluster="zurich", token="hunter2")
    finally:
        logs.reset()
    text = stream.getvalue()
    assert "joined" in text
    assert "zurich" in text
    assert "hunter2" not in text
    assert not text.startswith("{")


def test_a_reader_that_went_away_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """When nobody reads the log any more, the process goes on in silence."""
    stream = io.StringIO()
    logs.configure("tester", stream=stream)
    try:
        stream.close()
        logs.get_logger("a").info("still here")
    finally:
        logs.reset()
    assert capsys.readouterr().err == ""


def test_warnings_are_lines_too(lines: Lines) -> None:
    """A Python warning takes the same way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old habit", UserWarning, stacklevel=1)
    logging.captureWarnings(False)
    assert any("old habit" in line["event"] for line in lines())


def test_configuring_again_replaces_the_first() -> None:
    """After a second configure, lines go to the new stream only."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure("one", stream=first)
    logs.configure("two", stream=second)
    try:
        logs.get_logger("a").info("where")
    finally:
        logs.reset()
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["process"] == "two"
