"""The names of log fields, once: what a field is called, what it holds, in which unit.

A log line's event is constant text; everything that varies is a field. Whoever searches logs of several
processes relies on one name for one thing, so a name that is not in CATALOGUE fails a test
(tests/unit/federation/telemetry/test_fields.py). This module refuses to know who logs what, and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Set on every line by logs.py.
PROCESS = "process"
TIMESTAMP = "timestamp"
LEVEL = "level"
EVENT = "event"
LOGGER = "logger"

# Bound once per process or per scope.
TRAINING = "training"
CLUSTER = "cluster"
DATASET = "dataset"
ROUND = "round"

CATALOGUE: Mapping[str, str] = MappingProxyType(
    {
        PROCESS: "which program wrote the line: coordinator, aggregator, edge-agent, client, fetch, simulate",
        TIMESTAMP: "when, ISO 8601, UTC",
        LEVEL: "debug, info, warning, error, critical",
        EVENT: "what happened, constant text",
        LOGGER: "the module that wrote the line",
        TRAINING: "NAMESPACE/NAME of a FederatedTraining",
        CLUSTER: "name of an EdgeCluster",
        DATASET: "name of a data set, as edges offer it",
        ROUND: "number of the round, from 1",
        "calls": "number of a ServerApp's calls that its journal answered",
        "kept": "number of a journal's entries that hold",
        "rounds": "number of rounds that the training has in all",
        "phase": "phase of the round: Train, Evaluate, Query, Aggregate",
        "uid": "unique id of the training, which survives no deletion",
        "state": "state that the thing is in now",
        "previous": "state that it was in before",
        "reason": "why, as one CamelCase word of the catalogue of reasons or denials",
        "message": "why, as a sentence for people",
        "detail": "what else is known, e.g. the other side's sentence",
        "code": "name of a gRPC status code",
        "error": "text of the error that was met",
        "exception": "traceback, made from exc_info",
        "exc_info": "the exception whose traceback the line carries",
        "stack_info": "whether the line carries the stack",
        "address": "host:port",
        "port": "TCP port",
        "peer": "identity of the other side, a SPIFFE ID",
        "identity": "identity of this side, a SPIFFE ID",
        "method": "full name of the call, /package.Service/Method",
        "denial": "the typed reason of a refusal, from federation/wire/denials.py",
        "protocol": "version of the protocol",
        "serial": "serial number of a certificate, hex",
        "fingerprint": "SHA-256 of a certificate, hex",
        "expires_at": "when a certificate or token ends, ISO 8601, UTC",
        "token_id": "the id of a join token, never its secret",
        "digest": "sha256:HEX of an app bundle",
        "sha256": "SHA-256 of content, hex",
        "path": "file or directory",
        "uri": "where something is kept",
        "pid": "id of an operating-system process",
        "exit_code": "how a process ended; negative: by that signal",
        "signal": "name of a signal",
        "attempt": "number of the try, from 1",
        "retry_seconds": "wait before the next try",
        "delay_seconds": "wait before what the event names",
        "elapsed_seconds": "how long it took",
        "deadline_seconds": "how long it may take",
        "node_id": "Flower's id of a node",
        "run_id": "Flower's id of a run",
        "message_id": "id of a Flower message",
        "message_type": "type of a Flower message, with its action",
        "transfer_id": "id of a transfer, the message's id",
        "tensor": "name of an array in a record",
        "want": "what was expected",
        "got": "what came instead",
        "bytes": "size of content",
        "offset": "position in a transfer, in bytes",
        "count": "number of things that the event names",
        "examples": "number of training examples",
        "clusters": "names of EdgeClusters",
        "quorum": "clusters needed",
        "line": "a line of a Flower app's own output",
        "argv": "command line of a process that was started",
        "command": "name of a command",
        "workload": "name of a workload, as the runtime port knows it",
        "pod": "name of a pod",
        "lease": "name of a Lease",
        "regarding": "what an Event is about, kind and name",
        "datasets": "how many EdgeDatasets there are",
        "policies": "how many EdgePolicies there are",
        "addresses": "host:port of several places",
        "seconds": "how long something took, or is waited for",
        "kind": "kind of resource",
        "namespace": "namespace of a resource",
        "name": "name of a resource",
    }
)
