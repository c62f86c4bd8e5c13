"""Tests for the client workload made from an assignment."""

import json
import pathlib

import hypothesis
import pydantic
import pytest
from hypothesis import strategies as st

from edge_agent import assignments, policy, workloads
from edge_agent.client import config as client_config
from federation.runtime import port
from federation.wire import hanse_pb2

DIGEST = "sha256:" + "9f" * 32
ASSIGNMENT = assignments.Assignment(
    "u1",
    "cardiology",
    "hospitals",
    "heart-disease",
    DIGEST,
    None,
    "127.0.0.1:4000",
    "h.c",
    '{"lr": 0.5, "n": 1}',
)
PLACES = workloads.Places(pathlib.Path("/state"))
KEY = b"k" * workloads.STATE_KEY_BYTES


def make(assignment: assignments.Assignment = ASSIGNMENT) -> port.Workload:
    return workloads.client(
        assignment,
        policy.Allowed("rule", {"memory": "2Gi"}),
        cluster="budapest",
        places=PLACES,
        node_config={"data-path": "/srv"},
        state_key=KEY,
        python="/usr/bin/python3",
        environment={"PYTHONPATH": "/opt"},
        log_level="INFO",
    )


def test_the_client_reads_what_the_agent_wrote() -> None:
    """One file in the private directory, in the client's own model, types kept."""
    workload = make()
    assert workload.argv[-1] == f"{workload.directory}/config.json"
    read = client_config.ClientConfig.model_validate_json(workload.files["config.json"])
    assert read.run_config == {"lr": 0.5, "n": 1}
    assert type(read.run_config["n"]) is int
    assert read.app_directory == pathlib.Path("/state/bundles/" + "9f" * 32)
    assert read.credential_directory.is_relative_to(workload.directory)
    assert workload.resources.limits == {"memory": "2Gi"}
    assert read.state_key_file is not None
    assert workload.files[read.state_key_file.name] == KEY
    assert read.state_key_file.parent == workload.directory


def test_a_run_config_with_other_than_scalars_is_refused() -> None:
    """Flower's run config holds scalars only."""
    import dataclasses

    with pytest.raises(pydantic.ValidationError):
        make(dataclasses.replace(ASSIGNMENT, run_config='{"layers": [1, 2]}'))


@hypothesis.given(st.text(max_size=80), st.text(max_size=300))
def test_law_every_uid_and_name_make_a_valid_name(uid: str, name: str) -> None:
    """Names come from the hub and become files here."""
    port.Workload(name=workloads.name_of(uid, name), argv=("x",), directory=pathlib.Path("/x"))


def test_two_trainings_of_one_name_have_two_workloads() -> None:
    """A training that is deleted and made anew has another uid."""
    assert workloads.name_of("u1", "hospitals") != workloads.name_of("u2", "hospitals")


def test_an_assignment_comes_whole_from_the_wire() -> None:
    """Absent is the default, zero restarts are zero."""
    message = hanse_pb2.Assignment(
        uid="u", namespace="n", name="t", dataset="d", app_digest=DIGEST, app=hanse_pb2.AppSource(bundle=True)
    )
    read = assignments.from_wire(message)
    assert (read.run_config, read.maximum_restarts, read.client_app) == (
        "{}", assignments.DEFAULT_MAXIMUM_RESTARTS, None,
    )  # fmt: skip
    message.maximum_restarts = 0
    message.app.installed.client_app = "pkg:app"
    read = assignments.from_wire(message)
    assert (read.maximum_restarts, read.client_app, read.from_bundle) == (0, "pkg:app", False)


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": ""},
        {"dataset": ""},
        {"app_digest": "sha256:../.."},
        {"run_config_json": "[1]"},
        {"privacy_json": "{"},
    ],
)
def test_a_broken_assignment_is_refused(changes: dict) -> None:
    """Named before anything is made of it; a digest becomes a path here."""
    good = {"uid": "u", "namespace": "n", "name": "t", "dataset": "d", "app_digest": DIGEST}
    message = hanse_pb2.Assignment(app=hanse_pb2.AppSource(bundle=True), **{**good, **changes})
    with pytest.raises(assignments.InvalidAssignment):
        assignments.from_wire(message)


def test_the_config_is_json_that_people_can_read() -> None:
    """For whoever looks into the directory."""
    assert json.loads(make().files["config.json"])["cluster"] == "budapest"


def test_one_address_for_all_is_the_hubs() -> None:
    """Where the hub says so; never before the aggregator is up."""
    message = hanse_pb2.Assignment(
        uid="u", namespace="n", name="t", dataset="d", app_digest=DIGEST, app=hanse_pb2.AppSource(bundle=True)
    )
    assert assignments.from_wire(message, "hub.example:443").aggregator_address == ""
    message.same_address = True
    assert assignments.from_wire(message, "hub.example:443").aggregator_address == "hub.example:443"


def test_a_note_of_an_assignment_reads_back_whole() -> None:
    """What a found client was started for, and whose wish it was."""
    assert assignments.from_text(assignments.to_text("hub.example", ASSIGNMENT)) == (
        "hub.example", ASSIGNMENT,
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"hub": "h", "assignment": {"uid": "u"}}'])
def test_a_note_that_is_none_is_refused(text: str) -> None:
    """Such a client is ended, not guessed at."""
    with pytest.raises(assignments.InvalidAssignment):
        assignments.from_text(text)
