"""What leaves together, in which order, and that every frame leaves once."""

from hypothesis import given
from hypothesis import strategies as st

from federation.wire import codec, departures, frames, limits, outbox
from federation.wire import hanse_pb2 as pb


def named(name: str) -> pb.ClientFrame:
    return pb.ClientFrame(received=pb.TransferReceived(transfer_id=name))


def names(together: list[pb.ClientFrame | frames.Chunk]) -> list[str]:
    """What leaves, as words: a small frame's name, `begin`, or `chunk`."""
    return [
        "chunk" if isinstance(frame, frames.Chunk) else frame.received.transfer_id or "begin"
        for frame in together
    ]


class Sending:
    """One end of a session whose outbox has messages without arrays."""

    def __init__(self) -> None:
        self.box = outbox.Outbox(receiver_holds=False)
        self.box.link_up(None)
        self.departures = departures.Departures(self.box, lambda begin: pb.ClientFrame(begin=begin))

    def put(self, message_id: str) -> None:
        self.box.put(codec.OutgoingMessage(pb.MessageHeader(message_id=message_id), {}))

    def leaves(self, *, messages: bool = True) -> list[str]:
        return names(self.departures.next(messages=messages))


def test_a_mention_leaves_with_what_leaves_next() -> None:
    """It waits for company, and stands before it."""
    sending = Sending()
    sending.departures.mention(named("mentioned"))
    assert sending.leaves() == []
    sending.put("m-1")
    assert sending.leaves() == ["mentioned", "begin", "chunk"]
    assert not sending.departures


def test_a_mention_leaves_alone_when_its_time_has_come() -> None:
    """Also when all that remains is to be said before the end."""
    sending = Sending()
    sending.departures.mention(named("mentioned"))
    sending.departures.due()
    assert sending.leaves() == ["mentioned"]
    sending.departures.due()
    assert sending.leaves() == []
    sending.departures.mention(named("last"))
    sending.put("m-1")
    assert sending.leaves(messages=False) == ["last"]


def test_each_message_of_grpc_has_one_chunk_at_most() -> None:
    """A small frame overtakes the messages that wait."""
    sending = Sending()
    sending.put("m-1")
    sending.put("m-2")
    assert sending.leaves() == ["begin", "chunk"]
    sending.departures.say(named("said"))
    assert sending.leaves() == ["said", "begin", "chunk"]
    assert sending.leaves() == []


def test_long_lines_of_a_log_do_not_add_up_to_more_than_grpc_takes() -> None:
    """Each leaves as it would alone."""
    sending = Sending()
    line = "x" * (limits.MAX_FRAME_BYTES // 2)
    for _ in range(4):
        sending.departures.say(pb.ClientFrame(log=pb.LogLines(lines=[line])))
    sizes = [len(frames.serialise(sending.departures.next())) for _ in range(4)]
    assert max(sizes) < limits.MAX_FRAME_BYTES
    assert not sending.departures


@given(st.lists(st.sampled_from(["say", "mention", "put", "next", "due"]), max_size=80))
def test_every_frame_leaves_once_and_in_order(steps: list[str]) -> None:
    """Whatever is asked when, with never more frames together than a receiver takes."""
    sending, left, wanted = Sending(), list[str](), dict[str, list[str]]()
    for number, step in enumerate(steps):
        name = f"{step}-{number}"
        match step:
            case "say" | "mention":
                wanted.setdefault(step, []).append(name)
                getattr(sending.departures, step)(named(name))
            case "put":
                sending.put(name)
            case "due":
                sending.departures.due()
            case _:
                together = sending.leaves()
                assert len(together) <= frames.MAXIMUM_TOGETHER
                assert "chunk" not in together[:-1]
                left += together
    while together := sending.leaves():
        left += together
    while sending.departures:
        left += sending.leaves(messages=False)
    for kind, expected in wanted.items():
        assert [name for name in left if name.startswith(kind)] == expected
    assert left.count("begin") == left.count("chunk") == steps.count("put")
