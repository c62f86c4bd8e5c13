"""A Flower host in one page: a ServerApp here, one forked process per node, pipes between them.

Run as `python reference_host.py SPEC.json` in a process of its own; reference.py says what SPEC holds.
It takes Flower's own road for every message (objects deflated and inflated) and Context (protobuf), and gives
replies in the order of node ids. It is written to be obviously right, not fast.
"""

import json
import multiprocessing
import os
import pathlib
import queue
import sys
import threading
import time
import traceback
import uuid

import flwr.clientapp
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as strategies
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_ref import load_app
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID, SERVER_NODE_ID, TASK_ID = 7, 1, 1
APP_NOT_LOADED, APP_RAISED, EXPIRED, PROCESS_DIED = 1, 2, 3, 8


def deflate(message):
    """Return a message as Flower's objects by id, the root's id and the message id."""
    contents = {object_id: item.deflate() for object_id, item in get_all_nested_objects(message).items()}
    return message.object_id, message.metadata.message_id, contents


def inflate(packed):
    """Return the message."""
    root, message_id, contents = packed
    message = inflate_object_from_contents(root, dict(contents))
    message.metadata.__dict__["_message_id"] = message_id
    return message


def client_process(spec, node, directory, pipe):
    """Answer messages, one after the other, with the ClientApp; keep the Context between them."""
    os.chdir(directory)
    with open("output.log", "w") as output:  # noqa: PTH123 - the working directory is meant
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    identify(node["node_id"])
    context = Context(RUN_ID, node["node_id"], dict(node["config"]), RecordDict(), dict(spec["run_config"]))
    app = None
    while True:
        try:
            message = inflate(pipe.recv())
        except EOFError:
            os._exit(0)
        try:
            if app is None:
                app = load_app(spec["client_app"], ImportError, spec["app"])
            reply = app(message, context)
        except Exception as error:
            traceback.print_exc()
            code = APP_NOT_LOADED if app is None else APP_RAISED
            reply = Message(Error(code, f"{type(error)}:<'{error}'>"), reply_to=message)
        # Stock Flower keeps the state after an exception too.
        context = context_from_proto(ProtoContext.FromString(context_to_proto(context).SerializeToString()))
        reply.metadata.__dict__["_message_id"] = str(uuid.uuid4())
        sys.stdout.flush()
        pipe.send(deflate(reply))


class Node:
    """A node's process, and the thread that hands it one message at a time."""

    def __init__(self, spec, index):
        self.spec, self.node_id = spec["nodes"][index], spec["nodes"][index]["node_id"]
        directory = pathlib.Path(spec["work"], f"node-{index}")
        directory.mkdir()
        self.pipe, child = multiprocessing.Pipe()
        pid = os.fork()
        if pid == 0:
            self.pipe.close()
            try:
                client_process(spec, self.spec, directory, child)
            finally:
                os._exit(1)
        child.close()
        self.todo = queue.Queue()

    def start(self, answered):
        """Begin to hand over messages; no thread may exist before the last fork."""
        threading.Thread(target=self._work, args=(answered,), daemon=True).start()

    def _work(self, answered):
        while True:
            packed = self.todo.get()
            try:
                self.pipe.send(packed)
                reply = self.pipe.recv()
            except (EOFError, OSError):
                error = Message(Error(PROCESS_DIED, "the ClientApp's process died"), reply_to=inflate(packed))
                error.metadata.__dict__["_message_id"] = str(uuid.uuid4())
                reply = deflate(error)
            answered(packed[1], reply)


class MemoryGrid(Grid):
    """A Grid on nodes in memory, whose replies come in the order of node ids."""

    def __init__(self, nodes):
        self.nodes = {node.node_id: node for node in sorted(nodes, key=lambda node: node.node_id)}
        self.calls = 0
        self.changed = threading.Condition()
        self.sent, self.replies = {}, {}
        self._run = Run.create_empty(RUN_ID)
        for node in nodes:
            node.start(self._answered)

    def _answered(self, message_id, reply):
        with self.changed:
            self.replies[message_id] = reply
            self.changed.notify_all()

    def set_run(self, run):
        """Take another description of the run."""
        self._run = run

    @property
    def run(self):
        """Describe the run."""
        return self._run

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        """Make a message, as older apps do."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        """Return the ids of the nodes that have joined."""
        with self.changed:
            self.calls += 1
            return [
                node_id for node_id, node in self.nodes.items() if node.spec["joins_after_calls"] < self.calls
            ]

    def push_messages(self, messages):
        """Send messages, walking the input once."""
        ids = []
        for message in messages:
            message_id = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = message_id
            with self.changed:
                self.sent[message_id] = (message.metadata.dst_node_id, len(self.sent), message)
            self.nodes[message.metadata.dst_node_id].todo.put(deflate(message))
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids):
        """Return the replies that are there, each once; an expired message has an error instead."""
        ready = []
        with self.changed:
            for message_id in list(message_ids):
                if message_id not in self.sent:
                    continue
                metadata = self.sent[message_id][2].metadata
                if time.time() > metadata.created_at + metadata.ttl:
                    reply = Message(Error(EXPIRED, "the message expired"), reply_to=self.sent[message_id][2])
                elif message_id in self.replies:
                    reply = inflate(self.replies.pop(message_id))
                else:
                    continue
                ready.append((self.sent.pop(message_id)[:2], reply))
        return [reply for _, reply in sorted(ready, key=lambda pair: pair[0])]

    def send_and_receive(self, messages, *, timeout=None):
        """Send messages and wait for their replies, or for the time to pass."""
        messages = list(messages)
        ids = self.push_messages(messages)
        order = {
            message_id: (message.metadata.dst_node_id, position)
            for position, (message_id, message) in enumerate(zip(ids, messages, strict=True))
        }
        waiting, collected = set(ids), []
        end = None if timeout is None else time.monotonic() + timeout
        while waiting:
            replies = self.pull_messages(waiting)
            collected += replies
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            if end is not None and time.monotonic() >= end:
                break
            with self.changed:
                if waiting and not waiting & set(self.replies):
                    self.changed.wait(0.05)
        return sorted(collected, key=lambda reply: order[reply.metadata.reply_to_message_id])


def identify(node_id):
    """Tell Flower which node of which run this process is."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, node_id, TASK_ID


def app_of_strategy(spec):
    """Make the ServerApp of an app that has none; its result.npz is the strategy's result."""
    parameters = dict(spec["strategy"]["parameters"])
    initial = load_app(parameters.pop("initial-arrays"), ImportError, spec["app"])
    arguments = {name.replace("-", "_"): value for name, value in parameters.items()}
    strategy = getattr(strategies, spec["strategy"]["name"])(**arguments)
    app = ServerApp()

    @app.main()
    def main(grid, context):
        made = initial()
        result = strategy.start(
            grid,
            made if isinstance(made, ArrayRecord) else ArrayRecord(made),
            num_rounds=spec["strategy"]["rounds"],
            train_config=ConfigRecord(),
            evaluate_config=ConfigRecord(),
        )
        np.savez("result.npz", **{name: array.numpy() for name, array in result.arrays.items()})

    return app


def main(path):
    """Run one app."""
    import tomllib

    spec = json.loads(pathlib.Path(path).read_text())
    project = tomllib.loads(pathlib.Path(spec["app"], "pyproject.toml").read_text())
    components = project["tool"]["flwr"]["app"]["components"]
    spec["client_app"] = components["clientapp"]
    assert flwr.clientapp.ClientApp  # imported before the forks, so that each node has it at no cost
    nodes = [Node(spec, index) for index in range(len(spec["nodes"]))]
    os.chdir(pathlib.Path(spec["work"], "server"))
    identify(SERVER_NODE_ID)
    grid = MemoryGrid(nodes)
    app = (
        app_of_strategy(spec)
        if spec["strategy"]
        else load_app(components["serverapp"], ImportError, spec["app"])
    )
    app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), dict(spec["run_config"])))
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # nodes see their pipe end and leave; threads must not hold this process
