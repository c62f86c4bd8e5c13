"""CEL rules outside a Kubernetes API server: the same texts, evaluated by cel-python.

A rule that mentions oldSelf is a transition rule: it is evaluated on updates only, where an old value exists
at the same place. A rule that cannot be evaluated counts as broken, as it does in Kubernetes.
This module refuses to know schemas; validation.py says which rule meets which value.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

_OLD_SELF = re.compile(r"\boldSelf\b")


class InvalidRule(ValueError):
    """The rule is not CEL."""


def is_transition(rule: str) -> bool:
    """Return whether the rule compares with the old value."""
    return _OLD_SELF.search(rule) is not None


@functools.cache
def program(rule: str) -> celpy.Runner:
    """Return the compiled rule.

    Raises: InvalidRule if it is not CEL.
    """
    environment = celpy.Environment()
    try:
        return environment.program(environment.compile(rule))
    except CELParseError as error:
        raise InvalidRule(f"not CEL: {rule}: {error}") from error


def holds(rule: str, value: Any, old: Any = None) -> bool:
    """Return whether the rule holds for a JSON value (and, for a transition rule, the one before it)."""
    activation = {"self": json_to_cel(value)}
    if is_transition(rule):
        activation["oldSelf"] = json_to_cel(old)
    try:
        return bool(program(rule).evaluate(activation))
    except CELEvalError:
        return False
