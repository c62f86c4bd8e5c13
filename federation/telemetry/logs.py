"""How every process of Hanse writes its log: one JSON object a line, on standard error.

One place decides the format, so that a line of the coordinator, of an edge agent and of a Flower app's own
logging look alike and carry the same field names (`fields.py`). Records of the standard `logging`
module (flwr, grpc, kopf) take the same way out. Secrets are taken out here, last, whoever logged them.

This module refuses to know what is logged, and where the lines go after standard error.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# Libraries that write for developers of theirs at INFO; their warnings still come through.
_TALKATIVE = ("httpx", "httpcore", "urllib3", "matplotlib", "asyncio", "hpack", "kubernetes")

# Libraries that install a handler of their own on import and stop their records from going further.
_SELF_HANDLING = ("flwr",)

# A field with such a name is never written. `token_id` and `secret_name` are names of things, not secrets.
_SECRET_KEY = re.compile(
    r"(^|_)(token|secret|password|passphrase|authorization|key_pem|private_key|key_bytes)$"
)

# The same by shape, wherever it stands: a join token (its id may be shown), and a private key.
_JOIN_TOKEN = re.compile(r"\b(hanse_[A-Za-z0-9-]+)\.[A-Za-z0-9_-]{8,}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)

_process_fields: dict[str, Any] = {}


class _Handler(logging.StreamHandler[TextIO]):
    """A stream handler for which a reader that went away is no error: the process has other work to do."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], (OSError, ValueError)):
            return
        super().handleError(record)


def configure(process: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log to `stream`: JSON lines, or readable ones where the stream is a terminal.

    process: what the line's `process` field says, e.g. "edge-agent".
    level:   debug, info, warning, error or critical; lower ones are dropped before they cost anything.
    stream:  standard error if None.
    Raises:  ValueError for an unknown level.

    Call it once, first thing in the process; calling it again replaces what was set before.
    """
    try:
        threshold = LEVELS[level.lower()]
    except KeyError:
        raise ValueError(f"unknown log level {level!r}, known are {', '.join(LEVELS)}") from None
    stream = stream if stream is not None else sys.stderr
    _process_fields.clear()
    _process_fields["process"] = process

    on_every_line: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_process_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    for_terminal = stream.isatty()
    renderer: structlog.typing.Processor
    if for_terminal:
        renderer = structlog.dev.ConsoleRenderer(
            colors=True, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *on_every_line,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setLevel(threshold)  # records of loggers below the root pass it by level of their own only
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=on_every_line,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    adopt(*_SELF_HANDLING)


def adopt(*names: str) -> None:
    """Let the records of these loggers (and of those below them) take our way out, and no other.

    For libraries that install a console handler when they are imported, as flwr does: call it after the
    import. Handlers that write to files are left alone, they are the app's own wish.
    """
    for name in names:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
        logger.propagate = True


def reset() -> None:
    """Undo `configure`, for tests and for a command that hands the terminal to something else."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    _process_fields.clear()
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def get_logger(name: str, **fields: Any) -> structlog.stdlib.BoundLogger:
    """A logger for the module `name`; safe to make at import time, it is set up when first used."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name, **fields)
    return logger


def bind(**fields: Any) -> None:
    """Put these fields on every further line of this process, whichever thread or task writes it.

    For what is true of the whole process: an edge agent's `cluster`, an aggregator's `training`.
    """
    _process_fields.update(fields)


@contextmanager
def scope(**fields: Any) -> Iterator[None]:
    """Put these fields on the lines that this block (and the tasks that it starts) writes."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: no secret, no payload and no number that JSON cannot hold gets past it."""
    for key in list(event):
        event[key] = _clean(key, event[key])
    return event


def _clean(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key.lower()) and value is not None:
        return REDACTED
    if isinstance(value, str):
        if "hanse_" in value:
            value = _JOIN_TOKEN.sub(rf"\1.{REDACTED}", value)
        if "PRIVATE KEY" in value:
            value = _PRIVATE_KEY.sub(REDACTED, value)
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return {str(name): _clean(str(name), item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean("", item) for item in value]
    if isinstance(value, (int, bool, float)) or value is None:
        return value
    return _clean("", str(value))


def _add_process_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in _process_fields.items():
        event.setdefault(key, value)
    return event
