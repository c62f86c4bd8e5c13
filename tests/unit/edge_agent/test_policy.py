"""Tests for the owner's policy: what runs, what does not, and the sentence that says so."""

import dataclasses
import datetime as dt

import hypothesis
import pytest
from hypothesis import strategies as st

from edge_agent import policy, rules
from federation.api import policy as api
from federation.api import reasons

NOW = dt.datetime(2026, 3, 3, 12, 0, tzinfo=dt.UTC)  # a Tuesday
DIGEST = "sha256:" + "9f" * 32
Reason = reasons.ClusterReason

REQUEST = policy.Request(
    hub="hub.example",
    cluster="budapest",
    namespace="cardiology",
    training="hospitals",
    dataset="heart-disease",
    app_digest=DIGEST,
    image="registry.example/hanse/client:0.1",
    strategy="FedAvg",
    rounds=20,
    declared_examples=294,
)


def make_policy(*stated: dict, name: str = "owner", annotations: dict | None = None) -> api.EdgePolicy:
    return api.EdgePolicy.model_validate(
        {
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"rules": [{"name": "cardiology-only", **rule} for rule in stated]},
        }
    )


def decide(*stated: dict, now: dt.datetime = NOW, **changes: object) -> policy.Decision:
    return policy.decide(dataclasses.replace(REQUEST, **changes), [make_policy(*stated)], now)


def test_without_a_policy_nothing_runs() -> None:
    """The refusal names the cluster and what its owner can do."""
    decision = policy.decide(REQUEST, [], NOW)
    assert decision == policy.Refused(
        Reason.NO_POLICY,
        "",
        "budapest has no EdgePolicy, so nothing runs there; "
        "ask its owner to allow cardiology/hospitals in one",
    )


def test_a_policy_without_rules_allows_nothing() -> None:
    """An empty policy is not an open door."""
    decision = decide()
    assert isinstance(decision, policy.Refused)
    assert decision.reason == Reason.POLICY_DENIED


def test_a_rule_that_states_nothing_allows_all() -> None:
    """What a rule does not state it does not restrict."""
    assert decide({}) == policy.Allowed("cardiology-only")


def test_a_whole_rule_that_fits_allows() -> None:
    """Every field stated, every field met."""
    decision = decide(
        {
            "trainings": [{"hub": "hub.example", "namespace": "cardiology", "name": "*"}],
            "datasets": ["heart-disease"],
            "apps": {"digests": [DIGEST]},
            "images": ["registry.example/hanse/*"],
            "strategies": ["FedAvg", "FedAdam"],
            "privacy": {"differentialPrivacy": {"maximumEpsilon": "8"}},
            "limits": {
                "cpu": "4",
                "memory": "8Gi",
                "gpus": 1,
                "rounds": 200,
                "minimumExamples": 50,
            },
            "schedule": {"windows": ["Mon-Fri 09:00-17:00 Europe/Zurich"]},
        },
        privacy={"differentialPrivacy": {"epsilon": "8.0"}},
        requests={"cpu": "4000m", "memory": "1Gi"},
        limits={"memory": "2Gi"},
    )
    assert decision == policy.Allowed("cardiology-only", {"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "1"})


REFUSALS = {
    "a limit that nobody counts": (
        {"limits": {"egressBytesPerDay": "50Gi"}},
        {},
        Reason.POLICY_DENIED,
        "policy cardiology-only of budapest cannot be enforced: limits.egressBytesPerDay would limit "
        "nothing: it is not counted yet; ask its owner to correct it",
    ),
    "image": (
        {"images": ["registry.example/other/*"]},
        {},
        Reason.IMAGE_NOT_ALLOWED,
        "policy cardiology-only of budapest allows images of registry.example/other only; "
        "ask its owner or use an allowed image",
    ),
    "image pattern": (
        {"images": ["registry.example/hanse/client@sha256:*"]},
        {},
        Reason.IMAGE_NOT_ALLOWED,
        "policy cardiology-only of budapest allows images registry.example/hanse/client@sha256:* only; "
        "ask its owner or use an allowed image",
    ),
    "empty list of images": (
        {"images": []},
        {},
        Reason.IMAGE_NOT_ALLOWED,
        "policy cardiology-only of budapest allows images in an empty list only; "
        "ask its owner or use an allowed image",
    ),
    "hub": (
        {"trainings": [{"hub": "other.example"}]},
        {},
        Reason.POLICY_DENIED,
        "policy cardiology-only of budapest allows trainings */* of other.example only, "
        "not cardiology/hospitals of hub.example; ask its owner or use an allowed name",
    ),
    "dataset": (
        {"datasets": ["stroke", "sepsis"]},
        {},
        Reason.POLICY_DENIED,
        "policy cardiology-only of budapest allows data sets stroke or sepsis only, not heart-disease; "
        "ask its owner or use an allowed one",
    ),
    "app": (
        {"apps": {"digests": ["sha256:" + "00" * 32]}},
        {},
        Reason.APP_NOT_ALLOWED,
        f"policy cardiology-only of budapest allows apps with digest sha256:{'00' * 32} only, "
        f"and this one is {DIGEST}; ask its owner to review and add it",
    ),
    "signature": (
        {"apps": {"digests": [DIGEST], "signedBy": ["cardiology-keys"]}},
        {},
        Reason.APP_NOT_ALLOWED,
        "policy cardiology-only of budapest allows apps signed by cardiology-keys only; "
        "have the app signed or ask its owner",
    ),
    "own server app": (
        {"strategies": ["FedAvg"]},
        {"strategy": ""},
        Reason.STRATEGY_NOT_ALLOWED,
        "policy cardiology-only of budapest allows strategies FedAvg only, "
        "not a ServerApp of the app's own; "
        "ask its owner or use an allowed one",
    ),
    "no privacy": (
        {"privacy": {"differentialPrivacy": {"maximumEpsilon": "8"}}},
        {},
        Reason.PRIVACY_INSUFFICIENT,
        "policy cardiology-only of budapest demands differential privacy with an epsilon of at most 8, "
        "and the training promises none; set spec.privacy",
    ),
    "little privacy": (
        {"privacy": {"differentialPrivacy": {"maximumEpsilon": "8"}}},
        {"privacy": {"differentialPrivacy": {"epsilon": "10"}}},
        Reason.PRIVACY_INSUFFICIENT,
        "policy cardiology-only of budapest demands differential privacy with an epsilon of at most 8, "
        "and the training promises 10; lower it in spec.privacy or ask its owner",
    ),
    "memory": (
        {"limits": {"memory": "1Gi"}},
        {"limits": {"memory": "1025Mi"}},
        Reason.LIMIT_EXCEEDED,
        "policy cardiology-only of budapest allows 1Gi of memory, and the training asks for 1025Mi; "
        "lower spec.client.resources or ask its owner",
    ),
    "rounds": (
        {"limits": {"rounds": 10}},
        {},
        Reason.LIMIT_EXCEEDED,
        "policy cardiology-only of budapest allows 10 rounds, and the training asks for 20; "
        "ask for fewer or ask its owner",
    ),
    "rounds not said": (
        {"limits": {"rounds": 10}},
        {"rounds": 0},
        Reason.LIMIT_EXCEEDED,
        "policy cardiology-only of budapest allows 10 rounds, "
        "and the training does not say how many it takes; "
        "set num-server-rounds in spec.app.runConfig or ask its owner",
    ),
    "examples": (
        {"limits": {"minimumExamples": 300}},
        {},
        Reason.TOO_FEW_EXAMPLES,
        "policy cardiology-only of budapest demands at least 300 examples, "
        "and data set heart-disease has 294; "
        "ask its owner to lower limits.minimumExamples or to add data",
    ),
    "denied": (
        {"effect": "Deny", "images": ["registry.example/*"]},
        {},
        Reason.POLICY_DENIED,
        "policy cardiology-only of budapest denies images of registry.example; ask its owner to change it",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_rule_and_fact_in_the_owners_words(case: str) -> None:
    """Each violated fact has its reason and its sentence with what to do."""
    rule, changes, want_reason, want_message = REFUSALS[case]
    assert decide(rule, **changes) == policy.Refused(want_reason, "cardiology-only", want_message)


def test_the_closest_rule_speaks() -> None:
    """Of rules that all fail, the one that fails latest in the order of the checks is reported."""
    decision = decide(
        {"name": "aaa", "datasets": ["stroke"]},
        {"name": "zzz", "limits": {"rounds": 3}},
        {"name": "mmm", "images": ["other/*"]},
    )
    assert isinstance(decision, policy.Refused)
    assert (decision.rule, decision.reason) == ("zzz", Reason.LIMIT_EXCEEDED)


def test_outside_its_schedule_a_training_waits() -> None:
    """It waits until the window that opens first, and is told when."""
    decision = decide(
        {"name": "late", "schedule": {"windows": ["Sat 20:00-06:00 Europe/Zurich"]}},
        {"name": "soon", "schedule": {"windows": ["Mon-Fri 20:00-06:00 Europe/Zurich"]}},
    )
    assert decision == policy.Waiting(
        Reason.OUTSIDE_SCHEDULE,
        "soon",
        dt.datetime(2026, 3, 3, 19, 0, tzinfo=dt.UTC),
        "policy soon of budapest is open during Mon-Fri 20:00-06:00 Europe/Zurich only; "
        "it opens next at 2026-03-03 20:00 Europe/Zurich",
    )


def test_manual_approval_waits_until_the_owner_gives_it() -> None:
    """The annotation on the policy is the owner's word."""
    rule = {"approval": "Manual"}
    waiting = decide(rule)
    assert isinstance(waiting, policy.Waiting)
    assert (waiting.reason, waiting.until) == (Reason.APPROVAL_NEEDED, None)
    assert "hanse.dev/approved-trainings of EdgePolicy owner" in waiting.message
    approved = make_policy(rule, annotations={rules.APPROVAL_ANNOTATION: "other/one, cardiology/hospitals"})
    assert isinstance(policy.decide(REQUEST, [approved], NOW), policy.Allowed)


def test_a_rule_that_cannot_be_read_closes_its_policy() -> None:
    """No Allow rule of the same policy counts, and the message names the broken one."""
    decision = decide(
        {"name": "good"}, {"name": "bad", "schedule": {"windows": ["Mon 10:00-11:00 Moon/Sea"]}}
    )
    assert isinstance(decision, policy.Refused)
    assert decision.reason == Reason.POLICY_DENIED
    assert "there is no time zone Moon/Sea" in decision.message


def test_a_deny_rule_that_cannot_be_read_denies() -> None:
    """What it would have let through is not known, so nothing is, not even by another policy."""
    broken = make_policy(
        {"effect": "Deny", "schedule": {"windows": ["Mon 10:00-11:00 Moon/Sea"]}}, name="broken"
    )
    decision = policy.decide(REQUEST, [make_policy({}), broken], NOW)
    assert isinstance(decision, policy.Refused)


def test_a_deny_rule_binds_in_its_windows_only() -> None:
    """A schedule says when a Deny rule holds."""
    night = {"name": "night", "effect": "Deny", "schedule": {"windows": ["Mon-Sun 22:00-05:00"]}}
    assert isinstance(decide({}, night), policy.Allowed)
    assert isinstance(decide({}, night, now=NOW.replace(hour=23)), policy.Refused)


names = st.sampled_from(["heart-disease", "stroke"])
some_rules = st.builds(
    rules.Rule,
    policy=st.sampled_from(["p", "q"]),
    name=st.sampled_from(["a", "b", "c"]),
    denies=st.booleans(),
    unusable=st.sampled_from([None, None, None, "broken"]),
    datasets=st.none() | st.lists(names, max_size=2).map(tuple),
    images=st.none() | st.lists(st.sampled_from(["registry.example/*", "other/*"]), max_size=2).map(tuple),
    maximum_rounds=st.none() | st.integers(1, 40),
    minimum_examples=st.none() | st.integers(1, 500),
    manual_approval=st.booleans(),
)
requests = st.builds(
    dataclasses.replace,
    st.just(REQUEST),
    dataset=names,
    rounds=st.integers(0, 40),
    declared_examples=st.none() | st.integers(1, 500),
)


@hypothesis.given(requests, st.lists(some_rules, max_size=5), some_rules)
def test_law_a_deny_rule_more_never_allows_more(
    request: policy.Request, stated: list[rules.Rule], added: rules.Rule
) -> None:
    """What was not allowed is not allowed by adding a Deny rule."""
    before = policy.decide_by_rules(request, stated, NOW)
    after = policy.decide_by_rules(request, [*stated, dataclasses.replace(added, denies=True)], NOW)
    assert isinstance(before, policy.Allowed) or not isinstance(after, policy.Allowed)


@hypothesis.given(requests, st.lists(some_rules, max_size=5), st.randoms(use_true_random=False))
def test_law_the_order_of_rules_does_not_matter(
    request: policy.Request, stated: list[rules.Rule], rng
) -> None:
    """Not for the outcome, not for the rule, not for the words."""
    shuffled = list(stated)
    rng.shuffle(shuffled)
    assert policy.decide_by_rules(request, stated, NOW) == policy.decide_by_rules(request, shuffled, NOW)


@hypothesis.given(requests)
def test_law_no_policy_refuses_all(request: policy.Request) -> None:
    """Whatever is asked."""
    decision = policy.decide(request, [], NOW)
    assert isinstance(decision, policy.Refused)
    assert decision.reason == Reason.NO_POLICY
