"""Manifests without Kubernetes: defaults, exact sentences, CEL on create and update."""

# ruff: noqa: E501 - each wanted sentence stands in one piece

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.api import (
    checking,
    cluster,
    dataset,
    errors,
    meta,
    policy,
    rules,
    schema,
    training,
    validation,
)

DIGEST = "sha256:" + "9f" * 32


def a_training(**changes: Any) -> dict[str, Any]:
    """The smallest training; `changes` are paths with __ for dots, below spec."""
    document: dict[str, Any] = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": "hospitals"},
        "spec": {"app": {"source": {"path": "app"}}, "dataset": "heart-disease"},
    }
    for path, value in changes.items():
        document = validation.set_path(document, "spec." + path.replace("__", "."), value)
    return document


def a_dataset(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgeDataset",
        "metadata": {"name": "heart"},
        "spec": {"name": "heart-disease", "volume": {"hostPath": {"path": "/srv/heart"}}},
    }
    for path, value in changes.items():
        document = validation.set_path(document, "spec." + path.replace("__", "."), value)
    return document


def a_policy(*policy_rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgePolicy",
        "metadata": {"name": "ours"},
        "spec": {"rules": list(policy_rules)},
    }


def parsed(document: dict[str, Any]) -> Any:
    return validation.parse(document, "training.yaml")


def without(document: dict[str, Any], *path: str) -> dict[str, Any]:
    result = copy.deepcopy(document)
    node = result
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return result


# ---- defaults --------------------------------------------------------------------------------------------


def test_defaults_of_a_training() -> None:
    """The smallest training comes out with every default in place."""
    spec = parsed(a_training()).spec
    assert spec.clusters == training.Clusters(minimum=1, maximum=1000)
    assert spec.round == training.Round(
        deadline_seconds=600, minimum_fraction="0", late_replies=training.LateReplies.DISCARD
    )
    assert spec.client.maximum_restarts == 3
    assert spec.client.image is None
    assert spec.server.image is None
    assert spec.model.keep_rounds == 3
    assert spec.update_checks.maximum_update_bytes == 2 * 2**30
    assert spec.update_checks.maximum_examples == 2**40
    assert spec.update_checks.structure is training.Structure.AS_SENT
    assert spec.update_checks.on_violation is training.OnViolation.REFUSE_UPDATE
    assert spec.communication.maximum_message_bytes == 4 * 2**30
    assert spec.suspend is False
    assert spec.ttl_seconds_after_finished is None


def test_schema_and_model_agree_on_defaults() -> None:
    """Filling in defaults by the schema gives what the model would have filled in."""
    document = a_training()
    filled = checking.with_defaults(schema.of(training.FederatedTraining), document)
    direct = training.FederatedTraining.model_validate(document)
    assert training.FederatedTraining.model_validate(filled) == direct


def test_defaults_of_the_others() -> None:
    """The other kinds fill in their defaults too, and a namespace where one is due."""
    data = parsed(a_dataset())
    assert isinstance(data, dataset.EdgeDataset)
    assert (data.spec.mount_path, data.namespace) == ("/data", "default")
    rule = parsed(a_policy({"name": "all"})).spec.rules[0]
    assert (rule.effect, rule.approval, rule.images) == (policy.Effect.ALLOW, policy.Approval.AUTOMATIC, None)
    member = parsed({"apiVersion": meta.API_VERSION, "kind": "EdgeCluster", "metadata": {"name": "zurich"}})
    assert isinstance(member, cluster.EdgeCluster)
    assert (member.spec.acceptance, member.namespace) == (cluster.Acceptance.PENDING, None)


def test_types_of_run_config_are_kept() -> None:
    """Text, whole numbers, fractions and booleans stay what they are."""
    given_values = {"a": 1, "b": 1.5, "c": True, "d": "1", "e": 1.0, "with.dots-and/more": 0}
    kept = parsed(a_training(app__runConfig=given_values)).spec.app.run_config
    assert kept == given_values
    assert {key: type(value) for key, value in kept.items()} == {k: type(v) for k, v in given_values.items()}


def test_manifest_comes_back_the_same() -> None:
    """What a resource writes is read again as an equal resource."""
    for document in (
        a_training(clusters__minimum=3, client__resources={"limits": {"cpu": 2, "memory": "4Gi"}}),
        a_dataset(nodeConfig={"path": "$(MOUNT_PATH)/heart.csv", "n": 3}),
        a_policy({"name": "x", "images": [], "limits": {"cpu": 4}}),
    ):
        resource = parsed(document)
        assert validation.parse(resource.manifest(), "again") == resource


def test_empty_list_is_not_an_absent_one() -> None:
    """An absent list of a rule matches all, an empty one is kept as given."""
    rule = parsed(a_policy({"name": "x", "images": []})).spec.rules[0]
    assert (rule.images, rule.strategies) == ((), None)


# ---- bad manifests: the exact sentence -----------------------------------------------------------------

BAD_TRAININGS = {
    "unknown field": (
        a_training(clusers={}), 'spec.clusers: unknown field; did you mean "clusters"?'),
    "unknown field of another case": (
        a_training(updatechecks={}), 'spec.updatechecks: unknown field; did you mean "updateChecks"?'),
    "unknown field without a near one": (
        a_training(frobnicate=1), "spec.frobnicate: unknown field"),
    "missing field": (
        without(a_training(), "spec", "dataset"), "spec.dataset: is required and missing"),
    "no value": (
        a_training(dataset=None), "spec.dataset: has no value; give one or leave the field out"),
    "below the range": (
        a_training(round__deadlineSeconds=0), "spec.round.deadlineSeconds: must be at least 1, not 0"),
    "above the range": (
        a_training(clusters__maximum=1001), "spec.clusters.maximum: must be at most 1000, not 1001"),
    "text for a number": (
        a_training(clusters__minimum="three"), 'spec.clusters.minimum: must be a whole number, not "three"'),
    "boolean for a number": (
        a_training(clusters__minimum=True), "spec.clusters.minimum: must be a whole number, not true"),
    "number for text": (
        a_training(round__minimumFraction=0.75),
        'spec.round.minimumFraction: must be text, not 0.75; write it in quotes: "0.75"'),
    "fraction above one": (
        a_training(round__minimumFraction="1.5"),
        'spec.round.minimumFraction: must be a decimal number from 0 to 1 such as "0.75", not "1.5"'),
    "line feed after a match": (
        a_training(round__minimumFraction="0.5\n"),
        'spec.round.minimumFraction: must be a decimal number from 0 to 1 such as "0.75", not "0.5\\n"'),
    "text for a boolean": (
        a_training(suspend="yes"), 'spec.suspend: must be true or false, not "yes"'),
    "no such value": (
        a_training(round__lateReplies="discard"),
        'spec.round.lateReplies: must be Discard or NextRound, not "discard"; did you mean "Discard"?'),
    "a list in the run config": (
        a_training(app__runConfig={"layers": [1, 2]}),
        "spec.app.runConfig.layers: must be text, a number, true or false, not a list"),
    "not a number in the run config": (
        a_training(app__runConfig={"rate": float("nan")}), "spec.app.runConfig.rate: must be a finite number"),
    "a mapping where a field with dots is due": (
        a_training(strategy={"name": "FedAvg", "rounds": 1, "parameters": {"a.b": {}}}),
        'spec.strategy.parameters["a.b"]: must be text, a number, true or false, not a mapping'),
    "a bad quantity": (
        a_training(client__resources__limits__memory="2GB"),
        'spec.client.resources.limits.memory: must be a quantity such as "500m", "2" or "4Gi", not "2GB"'),
    "a fractional quantity without quotes": (
        a_training(client__resources__limits__cpu=0.5),
        'spec.client.resources.limits.cpu: must be text or a whole number, not 0.5; write it in quotes: "0.5"'),
    "a bad digest": (
        a_training(app__digest="sha256:12"),
        'spec.app.digest: must be sha256: and 64 lower-case hexadecimal digits, not "sha256:12"'),
    "rule: two sources": (
        a_training(app__source__oci__reference="registry.example/app:1"),
        "spec.app.source: give exactly one of configMap, image, oci and path"),
    "rule: no source": (
        a_training(app__source={}), "spec.app.source: give exactly one of configMap, image, oci and path"),
    "rule: maximum below minimum": (
        a_training(clusters={"minimum": 3, "maximum": 2}),
        "spec.clusters.maximum: maximum must be at least minimum"),
    "rule: selector without values": (
        a_training(clusters__selector__matchExpressions=[{"key": "region", "operator": "In"}]),
        "spec.clusters.selector.matchExpressions[0].values: In and NotIn need values; Exists and DoesNotExist take none"),
    "rule: selector with values too many": (
        a_training(clusters__selector__matchExpressions=[{"key": "a", "operator": "Exists", "values": ["x"]}]),
        "spec.clusters.selector.matchExpressions[0].values: In and NotIn need values; Exists and DoesNotExist take none"),
    "rule: delta alone": (
        a_training(privacy__differentialPrivacy__delta="0.00001"),
        "spec.privacy.differentialPrivacy.delta: delta needs epsilon"),
    "rule: image without a ServerApp": (
        a_training(app__source={"image": {"clientApp": "hospitals.client:app"}}),
        "spec: an app in an image needs either app.source.image.serverApp or strategy, not both"),
    "a value twice in a set": (
        a_training(clusters__selector__matchExpressions=[{"key": "a", "operator": "In", "values": ["x", "x"]}]),
        'spec.clusters.selector.matchExpressions[0].values[1]: "x" stands in '
        "spec.clusters.selector.matchExpressions[0].values[0] already"),
    "a name that is no label": (
        {**a_training(), "metadata": {"name": "Hospitals"}},
        "metadata.name: must be lower-case letters, digits and '-', beginning and ending with a letter or digit, "
        'not "Hospitals"'),
    "a name too long": (
        {**a_training(), "metadata": {"name": "h" * 53}}, "metadata.name: must have at most 52 characters, not 53"),
    "no name": (
        {**a_training(), "metadata": {}}, "metadata.name: is required and missing"),
    "no metadata": (
        without(a_training(), "metadata"), "metadata: is required and missing"),
    "metadata of another type": (
        {**a_training(), "metadata": "hospitals"}, 'metadata: must be a mapping, not "hospitals"'),
    "unknown metadata": (
        {**a_training(), "metadata": {"name": "a", "lables": {}}},
        'metadata.lables: unknown field; did you mean "labels"?'),
}  # fmt: skip


@pytest.mark.parametrize(("document", "want"), BAD_TRAININGS.values(), ids=BAD_TRAININGS.keys())
def test_bad_training(document: dict[str, Any], want: str) -> None:
    """Each mistake is one sentence that names source, kind, name, field and what is wrong."""
    with pytest.raises(errors.InvalidManifest) as caught:
        parsed(document)
    name = validation.name_of(document)
    assert (
        str(caught.value)
        == f"training.yaml: {'FederatedTraining ' + name if name else 'FederatedTraining'}: {want}"
    )


BAD_OTHERS = {
    "dataset without a volume": (
        a_dataset(volume={}),
        "spec.volume: give exactly one of persistentVolumeClaim, hostPath, configMap, csi and s3"),
    "relative path": (
        a_dataset(volume={"hostPath": {"path": "srv"}}),
        'spec.volume.hostPath.path: must be an absolute path such as /data, not "srv"'),
    "bad bucket": (
        a_dataset(volume={"s3": {"url": "http://x/y"}}),
        'spec.volume.s3.url: must be a bucket and a prefix such as s3://cardiology/heart-disease, '
        'not "http://x/y"'),
    "two rules of one name": (
        a_policy({"name": "a"}, {"name": "a"}), 'spec.rules[1]: name "a" stands in spec.rules[0] already'),
    "bad effect": (
        a_policy({"name": "a", "effect": "allow"}),
        'spec.rules[0].effect: must be Allow or Deny, not "allow"; did you mean "Allow"?'),
    "bad window": (
        a_policy({"name": "a", "schedule": {"windows": ["weekdays"]}}),
        "spec.rules[0].schedule.windows[0]: must be days, times and a zone, for example "
        'Mon-Fri 20:00-06:00 Europe/Zurich, not "weekdays"'),
    "no window": (
        a_policy({"name": "a", "schedule": {"windows": []}}),
        "spec.rules[0].schedule.windows: must not be empty"),
    "cluster with a namespace": (
        {"apiVersion": meta.API_VERSION, "kind": "EdgeCluster", "metadata": {"name": "a", "namespace": "b"}},
        "metadata.namespace: must be left out; every EdgeCluster is cluster-wide"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "want"), BAD_OTHERS.values(), ids=BAD_OTHERS.keys())
def test_bad_others(document: dict[str, Any], want: str) -> None:
    """The other kinds explain themselves the same way."""
    with pytest.raises(errors.InvalidManifest) as caught:
        validation.parse(document, "edge.yaml")
    assert str(caught.value) == f"edge.yaml: {document['kind']} {document['metadata']['name']}: {want}"


BAD_KINDS = {
    "misspelt kind": (
        {**a_training(), "kind": "FederatedTrainig"},
        'x.yaml: FederatedTrainig hospitals: is of a kind that Hanse does not read; did you mean "FederatedTraining"?'),
    "another kind": (
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
        "x.yaml: Pod p: is of a kind that Hanse does not read; expected FederatedTraining, EdgeCluster, EdgeDataset, "
        "EdgePolicy of hanse.dev/v1alpha1, Namespace or ConfigMap of v1"),
    "no kind": (
        {"spec": {}},
        "x.yaml: is no Kubernetes object, since it has no kind; expected FederatedTraining, EdgeCluster, EdgeDataset, "
        "EdgePolicy of hanse.dev/v1alpha1, Namespace or ConfigMap of v1"),
    "another version": (
        {**a_training(), "apiVersion": "hanse.dev/v1"},
        'x.yaml: FederatedTraining hospitals: apiVersion: is "hanse.dev/v1"; expected hanse.dev/v1alpha1'),
    "no version": (
        without(a_training(), "apiVersion"),
        "x.yaml: FederatedTraining hospitals: apiVersion: is missing; expected hanse.dev/v1alpha1"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "want"), BAD_KINDS.values(), ids=BAD_KINDS.keys())
def test_bad_kind(document: dict[str, Any], want: str) -> None:
    """A wrong kind or version says what is expected."""
    with pytest.raises(errors.UnknownKind) as caught:
        validation.parse(document, "x.yaml")
    assert str(caught.value) == want


def test_all_violations_are_told() -> None:
    """Every violation of an object is collected, one sentence on a line, rules of broken objects left out."""
    document = a_training(clusers={}, round__deadlineSeconds=0, clusters={"minimum": 3, "maximum": 2})
    with pytest.raises(errors.InvalidManifest) as caught:
        parsed(document)
    assert [violation.path for violation in caught.value.violations] == [
        "spec.clusers", "spec.round.deadlineSeconds", "spec.clusters.maximum"]  # fmt: skip
    assert len(str(caught.value).splitlines()) == 3
    assert (caught.value.path, caught.value.message) == (
        "spec.clusers",
        'unknown field; did you mean "clusters"?',
    )


# ---- updates -----------------------------------------------------------------------------------------------

UNCHANGEABLE = {
    "dataset": ({"dataset": "other"}, "spec.dataset: dataset"),
    "app source": ({"app__source": {"oci": {"reference": "r/a:1"}}}, "spec.app: app"),
    "run config value": ({"app__runConfig": {"rounds": 2}}, "spec.app: app"),
    "run config type": ({"app__runConfig": {"rounds": "1"}}, "spec.app: app"),
    "privacy": ({"privacy": {"differentialPrivacy": {"epsilon": "1"}}}, "spec.privacy: privacy"),
    "image added": ({"client__image": "r/c:1"}, "spec.client.image: image"),
    "server's image added": ({"server__image": "r/s:1"}, "spec.server.image: image"),
    "store added": ({"model__store": "pvc://m"}, "spec.model.store: store"),
}


@pytest.mark.parametrize(("changes", "want"), UNCHANGEABLE.values(), ids=UNCHANGEABLE.keys())
def test_what_cannot_change(changes: dict[str, Any], want: str) -> None:
    """Changing an unchangeable field is refused with the next step; as a new object it is fine."""
    old = parsed(a_training(app__runConfig={"rounds": 1}))
    new = parsed(a_training(**{"app__runConfig": {"rounds": 1}, **changes}))
    with pytest.raises(errors.InvalidUpdate) as caught:
        validation.check_update(old, new, "training.yaml")
    rounds = ", nor can the number of rounds of its own ServerApp, which takes it when it starts"
    assert str(caught.value) == (
        f"training.yaml: FederatedTraining hospitals: {want} cannot change after creation"
        f"{rounds if want == 'spec.app: app' else ''}; "
        "create another FederatedTraining instead"
    )


def with_strategy(rounds: int = 3, name: str = "FedAdam", **changes: Any) -> dict[str, Any]:
    strategy = {"name": name, "rounds": rounds, "parameters": {"eta": 0.1}}
    return a_training(strategy=strategy, **changes)


EPSILON = {"differentialPrivacy": {"epsilon": "2"}}
ANOTHER = "create another FederatedTraining instead"
ROUNDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "fewer": (
        with_strategy(), with_strategy(2),
        "spec.strategy.rounds: rounds can be raised, not lowered; to end sooner, set spec.stop"),
    "of FedBuff": (
        with_strategy(name="FedBuff"), with_strategy(4, name="FedBuff"),
        f"spec.strategy.rounds: FedBuff takes its number of versions when it starts; {ANOTHER}"),
    "more, with an epsilon": (
        with_strategy(privacy=EPSILON), with_strategy(4, privacy=EPSILON),
        "spec.strategy.rounds: rounds cannot be raised where privacy.differentialPrivacy.epsilon is a promise for the "
        f"whole training; {ANOTHER}"),
    "more, of another strategy": (
        with_strategy(), with_strategy(4, name="FedAvg"),
        f"spec.strategy.name: name cannot change after creation; {ANOTHER}"),
    "more, with another parameter": (
        with_strategy(), with_strategy(4, strategy__parameters={"eta": 0.2}),
        f"spec.strategy.parameters: parameters cannot change after creation; {ANOTHER}"),
    "another parameter": (
        with_strategy(), with_strategy(strategy__parameters={}),
        f"spec.strategy.parameters: parameters cannot change after creation; {ANOTHER}"),
    "strategy added": (
        a_training(), with_strategy(),
        f"spec.strategy: strategy cannot be added or removed after creation; {ANOTHER}"),
    "strategy removed": (
        with_strategy(), a_training(),
        f"spec.strategy: strategy cannot be added or removed after creation; {ANOTHER}"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "want"), ROUNDS.values(), ids=ROUNDS.keys())
def test_what_of_a_strategy_cannot_change(before: dict[str, Any], after: dict[str, Any], want: str) -> None:
    """Nothing but its rounds, which can only be raised, and not where a promise depends on them."""
    with pytest.raises(errors.InvalidUpdate) as caught:
        validation.check_update(parsed(before), parsed(after), "training.yaml")
    assert str(caught.value) == f"training.yaml: FederatedTraining hospitals: {want}"


def test_rounds_can_be_raised_until_the_end() -> None:
    """While it runs, also where privacy promises no epsilon; a training that has ended takes no more."""
    noise = {"differentialPrivacy": {"noiseMultiplier": "1"}}
    before, after = parsed(with_strategy(privacy=noise)), parsed(with_strategy(4, privacy=noise))
    validation.check_update(before, after)
    going = training.FederatedTrainingStatus(observed_generation=1)
    validation.check_update(before.with_status(going), after.with_status(going))
    over = training.FederatedTrainingStatus(completed_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(
        errors.InvalidUpdate, match="rounds: a training that has ended takes no more rounds; create"
    ):
        validation.check_update(before.with_status(over), after.with_status(over))
    validation.check_update(before, before.with_status(over))


def test_a_stop_cannot_be_undone() -> None:
    """It may be asked for at any time and stays."""
    going, over = parsed(a_training()), parsed(a_training(stop=True))
    validation.check_update(going, over)
    validation.check_update(over, over)
    with pytest.raises(
        errors.InvalidUpdate, match="a training that was stopped stays stopped; create another"
    ):
        validation.check_update(over, going)


def test_what_may_change() -> None:
    """Quorum, deadline, checks, resources and suspension may change; so may the status."""
    old = parsed(a_training())
    new = parsed(a_training(
        clusters__minimum=3, round__deadlineSeconds=10, updateChecks__maximumNorm="5", suspend=True,
        client__resources={"limits": {"cpu": "1"}}, model__keepRounds=9, ttlSecondsAfterFinished=5))  # fmt: skip
    validation.check_update(old, new)
    validation.check_update(new, new.with_status(training.FederatedTrainingStatus(observed_generation=2)))


def test_update_checks_the_new_object_too() -> None:
    """A rule that holds for every object is checked on updates as well."""
    old = parsed(a_training())
    new = old.model_copy(
        update={"spec": old.spec.model_copy(update={"clusters": training.Clusters(minimum=3, maximum=2)})}
    )
    with pytest.raises(errors.InvalidUpdate, match="maximum must be at least minimum"):
        validation.check_update(old, new)


def test_update_of_another_object() -> None:
    """Two objects of different names are no update."""
    with pytest.raises(errors.InvalidUpdate, match="is another object than FederatedTraining hospitals"):
        validation.check_update(
            parsed(a_training()), parsed({**a_training(), "metadata": {"name": "others"}}))  # fmt: skip


def test_transition_rules_meet_items_by_key() -> None:
    """A transition rule in a keyed list compares items of one key, whatever their order."""
    items = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "size cannot shrink"}],
    }
    keyed = {
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    old = [{"name": "a", "size": 1}, {"name": "b", "size": 5}]
    assert checking.violations(keyed, [{"name": "b", "size": 6}, {"name": "a", "size": 1}], old) == []
    shrunk = checking.violations(keyed, [{"name": "b", "size": 2}, {"name": "new", "size": 0}], old, "sizes")
    assert shrunk == [errors.Violation("sizes[0]", "size cannot shrink")]


def test_a_rule_that_cannot_be_evaluated_is_broken() -> None:
    """As in Kubernetes, an evaluation error counts against the object; text that is not CEL is a mistake of ours."""
    assert not rules.holds("self.missing > 1", {})
    with pytest.raises(rules.InvalidRule):
        rules.program("self..x")


# ---- laws and helpers --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(spec=JSON | st.fixed_dictionaries({}, optional={
    "app": JSON, "dataset": JSON, "clusters": JSON, "round": JSON, "strategy": JSON, "client": JSON}))  # fmt: skip
def test_any_document_gives_a_resource_or_sentences(spec: Any) -> None:
    """Whatever stands in spec, the outcome is a resource or a ManifestError without a pydantic message."""
    refusal: errors.ManifestError | None = None
    try:
        resource = parsed({**a_training(), "spec": spec})
    except errors.ManifestError as error:
        refusal = error
    if refusal is None:
        assert validation.parse(resource.manifest(), "again") == resource
    else:
        assert refusal.__cause__ is None
        assert str(refusal).startswith("training.yaml: FederatedTraining hospitals: spec")


@given(minimum=st.integers(-5, 1005), maximum=st.integers(-5, 1005))
def test_quorum_bounds(minimum: int, maximum: int) -> None:
    """A quorum is taken exactly if 1 <= minimum <= maximum <= 1000."""
    try:
        parsed(a_training(clusters={"minimum": minimum, "maximum": maximum}))
        taken = True
    except errors.InvalidManifest:
        taken = False
    assert taken == (1 <= minimum <= maximum <= 1000)


@given(values=st.dictionaries(st.sampled_from(["clusters", "round", "client"]), st.just({})))
def test_defaulting_twice_changes_nothing(values: dict[str, Any]) -> None:
    """Filling in defaults is idempotent."""
    full = schema.of(training.FederatedTraining)
    document = a_training(**values)
    once = checking.with_defaults(full, document)
    assert checking.with_defaults(full, once) == once


def test_set_path() -> None:
    """A path sets a field, makes mappings on the way, changes list items, and leaves the document alone."""
    document = a_policy({"name": "a"})
    changed = validation.set_path(document, "spec.rules[0].limits.gpus", 2)
    assert changed["spec"]["rules"] == [{"name": "a", "limits": {"gpus": 2}}]
    assert document["spec"]["rules"] == [{"name": "a"}]
    with pytest.raises(ValueError, match="there is no item 3"):
        validation.set_path(document, "spec.rules[3].name", "x")
    with pytest.raises(ValueError, match='name lies inside "EdgePolicy"'):
        validation.set_path(document, "kind.name", "x")
    with pytest.raises(ValueError, match="is not a path"):
        validation.set_path(document, "", "x")


@pytest.mark.parametrize(
    ("text", "want"),
    [("500m", "0.5"), ("2", "2"), ("4Gi", str(4 * 2**30)), ("1k", "1000"), ("1.5G", "1500000000")],
)
def test_quantity(text: str, want: str) -> None:
    """Quantities are numbers of their base unit."""
    assert meta.quantity(text) == meta.Decimal(want)


@pytest.mark.parametrize("text", ["", "Gi", "1GB", "x", "1.2.3", "-1"])
def test_bad_quantity(text: str) -> None:
    """Text that is no quantity is refused."""
    with pytest.raises(ValueError, match="is not a quantity"):
        meta.quantity(text)


@pytest.mark.parametrize(
    ("operator", "values", "want"),
    [("In", ["eu"], True), ("In", ["us"], False), ("NotIn", ["us"], True), ("NotIn", ["eu"], False),
     ("Exists", [], True), ("DoesNotExist", [], False)],
)  # fmt: skip
def test_selector_expressions(operator: str, values: list[str], want: bool) -> None:
    """Selectors compare labels as Kubernetes does."""
    selector = meta.LabelSelector.model_validate(
        {"matchExpressions": [{"key": "region", "operator": operator, "values": values}]}
    )
    assert selector.matches({"region": "eu"}) is want
    assert meta.LabelSelector().matches({})
    assert not meta.LabelSelector(match_labels={"a": "b"}).matches({"region": "eu"})


def test_conditions_move_only_with_their_status() -> None:
    """Setting a condition again keeps its time; another status takes the new time; others stay."""
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"

    def condition(type_: str, status: str, reason: str, time: str) -> meta.Condition:
        return meta.Condition.model_validate(
            {"type": type_, "status": status, "reason": reason, "lastTransitionTime": time}
        )

    first = meta.set_condition((), condition("Accepted", "True", "Valid", early))
    same = meta.set_condition(first, condition("Accepted", "True", "Valid", late))
    assert same == first
    both = meta.set_condition(first, condition("Running", "False", "NotStarted", late))
    turned = meta.set_condition(both, condition("Accepted", "False", "InvalidSpec", late))
    assert [c.type for c in turned] == ["Accepted", "Running"]
    assert turned[0].last_transition_time > first[0].last_transition_time
    assert meta.find_condition(turned, "Completed") is None


def test_what_the_edge_says_of_itself_gives_way() -> None:
    """The operator's labels win over the agent's."""
    member = cluster.EdgeCluster(
        metadata=meta.ObjectMeta(name="zurich"), spec=cluster.EdgeClusterSpec(labels={"region": "europe"}),
        status=cluster.EdgeClusterStatus(agent_labels={"region": "moon", "size": "small"}))  # fmt: skip
    assert member.selection_labels == {"region": "europe", "size": "small"}
