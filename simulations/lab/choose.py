"""Which provider makes a lab here: kind where Docker works, bare on Linux as root, else what is missing."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Protocol, cast

from simulations.lab import port, state

# Kind's module appears with it; each of these modules has `missing()` and a class of a lab.
_PROVIDERS = {
    port.Provider.KIND: ("simulations.lab.kind", "Kind"),
    port.Provider.BARE: ("simulations.lab.bare.provider", "Bare"),
}


class _Module(Protocol):
    def missing(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Machine:
    """For each provider why it cannot work here; empty where it can."""

    missing: dict[port.Provider, str]


def provider(machine: Machine, wanted: port.Provider | None) -> port.Provider:
    """The provider that was asked for, or the first that works.

    Raises: port.LabError that says what is missing.
    """
    if wanted is not None:
        if reason := machine.missing[wanted]:
            raise port.LabError(reason)
        return wanted
    for each in _PROVIDERS:
        if not machine.missing[each]:
            return each
    reasons = "; ".join(machine.missing[each] for each in _PROVIDERS)
    raise port.LabError(f"no lab can run on this machine: {reasons}")


def look() -> Machine:
    """Ask each provider."""
    return Machine({each: _missing(each) for each in _PROVIDERS})


def lab(name: str, directory: Path | None = None, wanted: port.Provider | None = None) -> port.Lab:
    """The lab of this name: by the provider that made it, else by the one that was asked for or works here.

    `directory` holds all labs; by default the user's state directory.
    Raises: port.LabError.
    """
    port.Plan(name, (), "")  # its name is checked there
    found = state.State(name, directory).read()
    chosen = wanted if found is None else found[1]
    if wanted is not None and chosen is not wanted:
        raise port.LabError(
            f"lab {name} is of the provider {chosen}; take it down first (`hanse lab down`), "
            "or take another --name"
        )
    if found is None:
        chosen = provider(look(), wanted)
    assert chosen is not None
    module, kind = _PROVIDERS[chosen]
    return cast(port.Lab, getattr(importlib.import_module(module), kind)(name, directory))


def _missing(each: port.Provider) -> str:
    name, _ = _PROVIDERS[each]
    if importlib.util.find_spec(name) is None:
        return f"the provider {each} is not part of this installation"
    return cast(_Module, importlib.import_module(name)).missing()
