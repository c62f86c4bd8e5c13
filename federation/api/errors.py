"""What can be wrong with a manifest, as one class hierarchy with one plain sentence for each violation.

A sentence reads `SOURCE: KIND NAME: PATH: MESSAGE`, without the parts that are not known. It refuses to
know what a command does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One thing wrong with an object: where (`spec.clusters.minimum`) and what, lower case, no full stop."""

    path: str
    message: str


class ManifestError(Exception):
    """A manifest cannot be used; `str` of it is one sentence for each violation, one on a line."""

    def __init__(self, source: str, kind: str, name: str, path: str, message: str) -> None:
        """Say which object of which source, where in it, and what is wrong; unknown parts are empty."""
        self.source = source
        self.kind = kind
        self.name = name
        self.path = path
        self.message = message
        super().__init__(sentence(source, kind, name, path, message))


class UnreadableManifest(ManifestError):
    """The file or directory is missing, is not YAML, or holds no object."""


class UnknownKind(ManifestError):
    """The object's apiVersion and kind are not among those that Hanse reads."""


class UnsupportedKustomization(ManifestError):
    """The kustomization asks for something that Hanse does not do itself."""


class InvalidManifest(ManifestError):
    """The object breaks its schema or its rules; `violations` has all that were found, in document order."""

    def __init__(self, source: str, kind: str, name: str, violations: Sequence[Violation]) -> None:
        """Take all violations (at least one); path and message are those of the first."""
        self.violations = tuple(violations)
        super().__init__(source, kind, name, self.violations[0].path, self.violations[0].message)

    def __str__(self) -> str:
        """Return one sentence for each violation, one on a line."""
        return "\n".join(
            sentence(self.source, self.kind, self.name, v.path, v.message) for v in self.violations
        )


class InvalidUpdate(InvalidManifest):
    """The new object may not replace the old one, for example because a field cannot change."""


def sentence(source: str, kind: str, name: str, path: str, message: str) -> str:
    """Return the parts that are known, joined as one sentence."""
    return ": ".join(part for part in (source, f"{kind} {name}".strip(), path, message) if part)
