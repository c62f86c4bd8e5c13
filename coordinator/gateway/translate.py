"""Between the planner's values and the wire's messages. It refuses to decide anything."""

from __future__ import annotations

import json
from collections.abc import Sequence

from coordinator.planning import desired, snapshot
from federation.wire import hanse_pb2 as pb


def assignments(wanted: Sequence[desired.Assignment]) -> pb.Assignments:
    """The whole wanted list of one cluster."""
    return pb.Assignments(assignments=[_assignment(entry) for entry in wanted])


def report(status: pb.AssignmentStatus) -> snapshot.Report:
    """What an edge says of one assignment."""
    try:
        name = pb.AssignmentState.Name(status.state).removeprefix("ASSIGNMENT_STATE_")
    except ValueError:  # a state of a newer agent
        name = "UNSPECIFIED"
    return snapshot.Report(name, status.reason, status.message, tuple(status.log_tail))


def progress(message: pb.ProgressReport) -> tuple[snapshot.Progress, list[snapshot.RoundMetrics]]:
    """An aggregator's picture, and the metrics that are new in it."""
    clusters = {
        entry.cluster: snapshot.ClusterProgress(
            state=entry.state,
            reason=entry.reason,
            message=entry.message,
            round=entry.round,
            examples=entry.examples if entry.HasField("examples") else None,
            last_update_at=entry.last_update_at,
            bytes_sent=entry.bytes_sent,
            bytes_received=entry.bytes_received,
        )
        for entry in message.clusters
    }
    metrics = [
        snapshot.RoundMetrics(entry.round, entry.phase, dict(entry.values)) for entry in message.metrics
    ]
    picture = snapshot.Progress(
        round=message.round,
        rounds_total=message.rounds_total,
        phase=message.phase,
        message=message.message,
        round_started_at=message.round_started_at,
        clusters=clusters,
        bytes_sent=message.bytes_sent,
        bytes_received=message.bytes_received,
        phase_seconds=dict(message.phase_seconds),
    )
    return picture, metrics


def finished(message: pb.TrainingFinished) -> snapshot.Finished:
    """How the training ended."""
    return snapshot.Finished(
        message.succeeded,
        message.reason,
        message.message,
        message.model_uri,
        message.model_sha256,
        message.model_round,
        tuple(message.log_tail),
    )


def roster(members: Sequence[desired.RosterMember]) -> pb.Roster:
    """The whole roster."""
    return pb.Roster(
        members=[
            pb.RosterMember(cluster=m.cluster, expected=m.expected, reason=str(m.reason), message=m.message)
            for m in members
        ]
    )


def rules(wanted: desired.RoundRules) -> pb.RoundRules:
    """The rules of the next round."""
    return pb.RoundRules(
        quorum=wanted.quorum,
        minimum_fraction=wanted.minimum_fraction,
        deadline_seconds=wanted.deadline_seconds,
        late_replies=wanted.late_replies,
    )


def _assignment(wanted: desired.Assignment) -> pb.Assignment:
    app = wanted.app
    if app.bundled:
        source = pb.AppSource(bundle=True)
    else:
        source = pb.AppSource(installed=pb.InstalledApp(client_app=app.client_app, server_app=app.server_app))
    return pb.Assignment(
        uid=wanted.uid,
        namespace=wanted.namespace,
        name=wanted.name,
        dataset=wanted.dataset,
        app_digest=app.digest,
        app=source,
        aggregator_address=wanted.aggregator_address,
        aggregator_server_name=wanted.aggregator_server_name,
        run_config_json=json.dumps(dict(wanted.run_config), sort_keys=True),
        image=wanted.image,
        strategy=wanted.strategy,
        rounds=wanted.rounds,
        resource_limits=dict(wanted.resource_limits),
        resource_requests=dict(wanted.resource_requests),
        privacy_json=json.dumps(dict(wanted.privacy), sort_keys=True),
        maximum_restarts=wanted.maximum_restarts,
    )
