"""What all resources share: the model base, documented fields, CEL rules, metadata, conditions, value types.

The models are the one source of truth. A field's bounds, default, sentence and mutability stand beside
it, and both the CRDs and the validation without Kubernetes are derived from there (schema.py).

This module refuses to know any one resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "hanse.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Keys that carry documentation from a field to schema.py, which turns them into the description.
DOC_TEXT = "x-doc-text"
DOC_CHANGE = "x-doc-change"
DOC_REFUSAL = "x-doc-refusal"


class Change(StrEnum):
    """When a field may change, as the sentence that its description ends with."""

    NEVER = "Cannot change after creation."
    ANY_TIME = "May change at any time."
    ONCE = "May change to true at any time and stays so."
    NEXT_ROUND = "May change at any time and counts from the next round on."
    BUT_ROUNDS = "Cannot change after creation, but for its rounds."
    GROWS = "May change to a larger number at any time and counts from the next round on."
    NEXT_START = "May change at any time and counts for processes started afterwards."
    NEXT_TRAINING = "May change at any time and counts for trainings that start afterwards."
    BY_HUB = "Set by the hub."
    BY_AGENT = "Set by the edge agent."
    BY_HANSE = "Set by Hanse."


@dataclass(frozen=True)
class Doc:
    """A field's documentation and Kubernetes extensions.

    `text` goes on after the field's name ("is how long ..."), without default, bounds and mutability:
    those are appended from the schema itself. `extensions` are merged into the field's schema. `refusal` is
    what a change of a field that never changes is answered with, where the next step is not plain.
    """

    text: str
    change: Change
    extensions: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the documentation to the field's JSON schema."""
        schema = {**handler(core), DOC_TEXT: self.text, DOC_CHANGE: self.change.value, **self.extensions}
        return schema | ({DOC_REFUSAL: self.refusal} if self.refusal else {})


class Rule(NamedTuple):
    """One CEL rule of an object: what must be true, the plain message if not, and the field it speaks of."""

    rule: str
    message: str
    field_path: str = ""

    def schema(self) -> dict[str, str]:
        """Return the rule as an entry of x-kubernetes-validations."""
        entry = {"rule": self.rule, "message": self.message}
        return entry | {"fieldPath": self.field_path} if self.field_path else entry


def exactly_one_of(*names: str) -> Rule:
    """Return the rule that exactly one of the named fields is given."""
    wanted = ", ".join(names[:-1]) + " and " + names[-1]
    return Rule(
        f"[{', '.join(f'has(self.{n})' for n in names)}].filter(given, given).size() == 1",
        f"give exactly one of {wanted}",
    )


class Model(BaseModel):
    """A frozen part of a resource: snake_case here, camelCase in YAML and on the wire, nothing unknown."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
    CEL: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the class's CEL rules to its JSON schema."""
        schema = handler.resolve_ref_schema(handler(core))
        if cls.CEL:
            schema["x-kubernetes-validations"] = [rule.schema() for rule in cls.CEL]
        return schema

    def manifest(self) -> dict[str, Any]:
        """Return it as it stands in YAML: JSON types, camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


# ---- value types -----------------------------------------------------------------------------------------

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
FRACTION_PATTERN = r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$"
DECIMAL_PATTERN = r"^[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,2})?$"
QUANTITY_PATTERN = r"^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
ABSOLUTE_PATH_PATTERN = r"^/[^\x00]*$"

# How each pattern is told to people; the API server can only show the pattern itself.
PATTERN_WORDS = {
    LABEL_PATTERN: "lower-case letters, digits and '-', beginning and ending with a letter or digit",
    SUBDOMAIN_PATTERN: "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
    LABEL_VALUE_PATTERN: "letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    LABEL_KEY_PATTERN: "a label key such as region or example.org/region",
    DIGEST_PATTERN: "sha256: and 64 lower-case hexadecimal digits",
    SHA256_PATTERN: "64 lower-case hexadecimal digits",
    FRACTION_PATTERN: 'a decimal number from 0 to 1 such as "0.75"',
    DECIMAL_PATTERN: 'a decimal number of at least 0 such as "1.5"',
    QUANTITY_PATTERN: 'a quantity such as "500m", "2" or "4Gi"',
    MODULE_PATTERN: "module:attribute, for example hospitals.client_app:app",
    ABSOLUTE_PATH_PATTERN: "an absolute path such as /data",
}

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
Digest = Annotated[str, Field(max_length=71, pattern=DIGEST_PATTERN)]
Sha256 = Annotated[str, Field(max_length=64, pattern=SHA256_PATTERN)]
Fraction = Annotated[str, Field(max_length=11, pattern=FRACTION_PATTERN)]
DecimalText = Annotated[str, Field(max_length=42, pattern=DECIMAL_PATTERN)]
Message = Annotated[str, Field(max_length=32768)]
Word = Annotated[str, Field(max_length=128)]
ShortText = Annotated[str, Field(max_length=256)]
MAXIMUM_URI_CHARACTERS = 2048
Uri = Annotated[str, Field(max_length=MAXIMUM_URI_CHARACTERS)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
BigCount = Annotated[int, Field(ge=0, le=2**62)]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=4096, pattern=ABSOLUTE_PATH_PATTERN)]

# What resource quantities look like in every Kubernetes schema; kept as text here.
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 31,
        }
    ),
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=32)]
Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]], Field(max_length=64)
]

# A map of scalars that keep their types. A structural schema cannot say "text, number or boolean", since
# int-or-string has no booleans and `type` may not stand inside anyOf. So a value is of no declared type,
# kept as it is (preserve-unknown-fields), and the two bounds of zero, which concern objects and lists
# only, keep those out. An API server still takes {} and []; validation.py and so the hub refuse those by
# name. Mind that JSON knows one number type: kubectl turns 1.0 into 1, so readers of the map take types
# from the app's own config.
SCALAR_SCHEMA = {
    "x-kubernetes-preserve-unknown-fields": True,
    "maxLength": 4096,
    "maxItems": 0,
    "maxProperties": 0,
}
Scalar = bool | int | float | str
ScalarMap = Annotated[
    dict[str, Scalar],
    WithJsonSchema({"type": "object", "maxProperties": 256, "additionalProperties": SCALAR_SCHEMA}),
]

_SUFFIXES = {"": Decimal(1), "m": Decimal("0.001")}
_SUFFIXES |= {letter: Decimal(1000) ** (n + 1) for n, letter in enumerate("kMGTPE")}
_SUFFIXES |= {f"{letter}i": Decimal(1024) ** (n + 1) for n, letter in enumerate("KMGTPE")}


def quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity ("500m", "2", "4Gi") as a number of its base unit (cores, bytes).

    Raises: ValueError if the text is not a quantity.
    """
    number = text.rstrip("mkKMGTPEi")
    suffix = text[len(number) :]
    if suffix not in _SUFFIXES or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi")
    return Decimal(number) * _SUFFIXES[suffix]


# ---- metadata, conditions, selectors -----------------------------------------------------------------------


class ObjectMeta(Model):
    """The part of Kubernetes' ObjectMeta that Hanse reads; what else an API server adds is not kept."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()


class ConditionStatus(StrEnum):
    """The three values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of an object's state, as Kubernetes' metav1.Condition."""

    type: Annotated[Word, Field(min_length=1), Doc("is the aspect, in CamelCase.", Change.BY_HANSE)]
    status: Annotated[ConditionStatus, Doc("says whether the aspect holds.", Change.BY_HANSE)]
    reason: Annotated[Word, Field(min_length=1), Doc("is why, as one CamelCase word.", Change.BY_HANSE)]
    message: Annotated[Message, Doc("is one sentence for people with the next step.", Change.BY_HANSE)] = ""
    last_transition_time: Annotated[datetime, Doc("is when status last changed.", Change.BY_HANSE)]
    observed_generation: Annotated[
        BigCount | None, Doc("is the metadata.generation that the condition speaks of.", Change.BY_HANSE)
    ] = None


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16)]
CONDITIONS = Doc(
    "are the aspects of the object's state, one of each type.",
    Change.BY_HUB,
    {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
)
AGENT_CONDITIONS = Doc(CONDITIONS.text, Change.BY_AGENT, CONDITIONS.extensions)


def keyed(text: str, change: Change, *keys: str) -> Doc:
    """Return the documentation of a list that is merged by the given keys of its items."""
    return Doc(text, change, {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


def a_set(text: str, change: Change) -> Doc:
    """Return the documentation of a list of scalars in which each stands once."""
    return Doc(text, change, {"x-kubernetes-list-type": "set"})


def atomic(text: str, change: Change) -> Doc:
    """Return the documentation of a list that is replaced as a whole."""
    return Doc(text, change, {"x-kubernetes-list-type": "atomic"})


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type_), None)


def set_condition(conditions: Iterable[Condition], new: Condition) -> tuple[Condition, ...]:
    """Return the conditions with `new` in its type's place (at the end if it has none).

    Law: last_transition_time moves only when the status does; setting a condition twice changes nothing.
    """
    kept = tuple(conditions)
    old = find_condition(kept, new.type)
    if old is None:
        return (*kept, new)
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if condition.type == new.type else condition for condition in kept)


class SelectorOperator(StrEnum):
    """How a selector's expression compares a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorExpression(Model):
    """One requirement on a label, as in Kubernetes' label selectors."""

    CEL = (
        Rule(
            "self.operator in ['In', 'NotIn'] == (has(self.values) && self.values.size() > 0)",
            "In and NotIn need values; Exists and DoesNotExist take none",
            ".values",
        ),
    )

    key: Annotated[
        str,
        Field(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN),
        Doc("is the label's key.", Change.NEXT_ROUND),
    ]
    operator: Annotated[SelectorOperator, Doc("is how the label is compared.", Change.NEXT_ROUND)]
    values: Annotated[
        tuple[Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)], ...],
        Field(max_length=64),
        a_set("are the values to compare with.", Change.NEXT_ROUND),
    ] = ()


class LabelSelector(Model):
    """Which objects, by their labels; an empty selector selects all."""

    match_labels: Annotated[Labels, Doc("are labels that must all be there.", Change.NEXT_ROUND)] = Field(
        default_factory=dict
    )
    match_expressions: Annotated[
        tuple[SelectorExpression, ...],
        Field(max_length=32),
        atomic("are requirements that must all hold.", Change.NEXT_ROUND),
    ] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels is selected."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(_holds(expression, labels) for expression in self.match_expressions)


def _holds(expression: SelectorExpression, labels: Mapping[str, str]) -> bool:
    match expression.operator:
        case SelectorOperator.IN:
            return labels.get(expression.key) in expression.values
        case SelectorOperator.NOT_IN:  # as in Kubernetes, an absent label is "not in"
            return labels.get(expression.key) not in expression.values
        case SelectorOperator.EXISTS:
            return expression.key in labels
        case SelectorOperator.DOES_NOT_EXIST:
            return expression.key not in labels


# ---- resources ---------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column of `kubectl get`; `json_path` starts at the object, `wide` hides it without -o wide."""

    name: str
    json_path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


class ResourceInfo(NamedTuple):
    """What the API server and kubectl need to know of a resource besides its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]
    maximum_name_length: int = 63


class Resource(Model):
    """One object of the API; subclasses add `spec` and `status` and say their `INFO`."""

    INFO: ClassVar[ResourceInfo]
    ADMISSION: ClassVar[tuple[Rule, ...]] = ()
    """Rules of the whole object that a CRD cannot hold, whose CEL does not see maps of scalars; on a cluster
    manifests/hub/base/admission.yaml holds them."""

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str | None:
        """The object's namespace, None for cluster-wide resources."""
        return self.metadata.namespace

    def with_status(self, status: Model) -> Self:
        """Return the object with another status."""
        return self.model_copy(update={"status": status})
