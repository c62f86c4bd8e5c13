"""What an image contains, as an SPDX document.

Why it exists: whoever runs an image on patient data's side asks what is in it. The list is what the packages
say of themselves: Debian's control files and the metadata of Python distributions. Pure; it refuses to look
anything up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """One package in an image."""

    kind: str
    """`deb`, `pypi` or `golang`, as in package URLs."""
    name: str
    version: str
    license: str = ""
    """As the package says it; empty when it says nothing in SPDX's words."""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @property
    def url(self) -> str:
        """The package URL."""
        namespace = "debian/" if self.kind == "deb" else ""
        name = re.sub(r"[-_.]+", "-", self.name).lower() if self.kind == "pypi" else self.name
        version = self.version.replace("+", "%2B").replace(":", "%3A")
        return f"pkg:{self.kind}/{namespace}{name}@{version}"


def distributions(directory: Path) -> list[Component]:
    """The Python distributions installed under `directory`."""
    found = []
    for metadata in sorted(directory.rglob("*.dist-info/METADATA")):
        headers = HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
        found.append(
            Component("pypi", headers["Name"], headers["Version"], headers.get("License-Expression") or "")
        )
    return sorted(found)


def document(reference: str, digest: str, components: Iterable[Component], created: str) -> Mapping[str, Any]:
    """An SPDX 2.3 document of one image; `created` as 2026-01-31T12:00:00Z."""
    packages: list[dict[str, Any]] = [
        {
            "SPDXID": "SPDXRef-image",
            "name": reference,
            "versionInfo": digest,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "primaryPackagePurpose": "CONTAINER",
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
        }
    ]
    name = reference.rpartition("/")[2].replace(":", "-")
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    for component in sorted(set(components)):
        identifier = "SPDXRef-" + re.sub(
            r"[^A-Za-z0-9.-]", "-", f"{component.kind}-{component.name}-{component.version}"
        )
        packages.append(
            {
                "SPDXID": identifier,
                "name": component.name,
                "versionInfo": component.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": False,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": component.license or "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": component.url,
                    }
                ],
            }
        )
        relations.append(_relation("SPDXRef-image", "CONTAINS", identifier))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": reference,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{digest[7:]}",
        "creationInfo": {"created": created, "creators": ["Tool: hanse-lab-images"]},
        "packages": packages,
        "relationships": relations,
    }


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
