"""Write the golden logs of the round machine; review the difference as prose before committing it.

python tests/golden/regenerate.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from story import Story  # noqa: E402

from coordinator.aggregation import events  # noqa: E402

RULES = events.RoundRules(quorum=3, minimum_fraction=Fraction(1, 2), deadline_seconds=600)
NOT_FINITE = events.Refused(
    "NotFinite", "array dense.weight is nan at element 17; every value must be finite"
)


def all_report() -> Story:
    story = Story("All report: a round of training and one of evaluation", 4, RULES)
    story.begin()
    story.tell(events.NodesAsked(1), events.NodesAsked(1))
    story.push("train-1", (1, 2, 3, 4), 1)
    story.tell(events.MessageDelivered("train-1/edge-01"))
    for node, now in ((3, 2.0), (1, 2.5), (4, 3.0), (2, 4.0)):
        story.reply("train-1", node, now)
    story.tell(events.NodesAsked(5))
    story.push("evaluate-1", (1, 2, 3, 4), 5, events.Kind.EVALUATE)
    for node, now in ((4, 5.1), (2, 5.2), (3, 5.3), (1, 5.4)):
        story.reply("evaluate-1", node, now)
    story.tell(events.AppFinished(6))
    return story


def straggler() -> Story:
    story = Story("A straggler past the deadline, with quorum", 4, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    for node in (1, 2, 4):
        story.reply("train-1", node, 10 + node)
    story.tell(events.TimePassed(600))
    story.say("The late reply is confirmed, so that the client does not send it again, and dropped.")
    story.reply("train-1", 3, 610)
    story.push("train-2", (1, 2, 3, 4), 620)
    return story


def late_replies_count() -> Story:
    rules = events.RoundRules(
        quorum=2, deadline_seconds=60, late_replies=events.LateReplies.NEXT_ROUND, link_grace_seconds=5
    )
    story = Story("A straggler whose late replies count in the next round", 3, rules)
    story.begin()
    story.push("train-1", (1, 2, 3), 0)
    story.reply("train-1", 1, 5)
    story.reply("train-1", 2, 6)
    story.tell(events.TimePassed(60))
    story.say("The next round has begun when the late reply comes: it answers the message of that round.")
    story.push("train-2", (1, 2, 3), 61)
    story.reply("train-1", 3, 70)
    story.reply("train-2", 2, 71)
    story.reply("train-2", 1, 72)
    story.say("What the straggler makes of the second message is late as well, and comes before the third.")
    story.reply("train-2", 3, 80)
    story.push("train-3", (1, 2, 3), 90)
    story.reply("train-3", 1, 95)
    story.reply("train-3", 2, 96)
    return story


def grace() -> Story:
    rules = events.RoundRules(quorum=2, deadline_seconds=600, grace_seconds=20)
    story = Story("A round that has enough gives the others a grace", 4, rules)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.reply("train-1", 2, 10)
    story.say(
        "With the second reply there are enough; the third comes within the grace, the fourth does not."
    )
    story.reply("train-1", 4, 15)
    story.reply("train-1", 1, 34)
    story.tell(events.TimePassed(35))
    story.reply("train-1", 3, 36)
    story.push("evaluate-1", (1, 2, 3, 4), 40, events.Kind.EVALUATE)
    for node, now in ((3, 41.0), (1, 42.0), (2, 43.0), (4, 44.0)):
        story.reply("evaluate-1", node, now)
    return story


def over_provision() -> Story:
    rules = events.RoundRules(
        quorum=2,
        deadline_seconds=600,
        over_provision_fraction=Fraction(1, 3),
        late_replies=events.LateReplies.NEXT_ROUND,
    )
    story = Story("Of four clusters asked the first three are taken", 4, rules)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    for node, now in ((4, 10.0), (1, 11.0), (3, 12.0)):
        story.reply("train-1", node, now)
    story.say("The fourth comes late and counts in the next round, which takes the first three again.")
    story.reply("train-1", 2, 13)
    story.push("train-2", (1, 2, 3, 4), 20)
    story.reply("train-2", 3, 30)
    story.reply("train-2", 1, 31)
    story.say("A refused reply is not one of those taken: the fourth is waited for.")
    story.push("train-3", (1, 2, 3, 4), 40)
    story.reply("train-3", 1, 50)
    story.reply("train-3", 2, 51, NOT_FINITE)
    story.reply("train-3", 3, 52)
    story.reply("train-3", 4, 53)
    return story


def quorum_lost() -> Story:
    story = Story("The quorum is lost at the deadline", 4, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.reply("train-1", 2, 9)
    story.reply("train-1", 4, 11)
    story.tell(events.TimePassed(600))
    story.say("What comes afterwards changes nothing.")
    story.reply("train-1", 1, 601)
    story.push("train-2", (1, 2), 602)
    return story


def link_back() -> Story:
    story = Story("A link is lost and comes back within the grace", 3, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3), 0)
    story.tell(events.MessageDelivered("train-1/edge-02"))
    story.reply("train-1", 1, 5)
    story.tell(events.LinkLost(2, 6))
    story.reply("train-1", 3, 7)
    story.tell(events.NodeConnected(2, 20))
    story.reply("train-1", 2, 21)
    return story


def link_gone() -> Story:
    story = Story("A link is lost for good, in a round and before the next", 4, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.tell(events.LinkLost(2, 6))
    for node in (1, 3, 4):
        story.reply("train-1", node, 6 + node)
    story.tell(events.TimePassed(36))
    story.say(
        "The app counts nodes, loses one, counts again and still finds as many, so that it does not wait."
    )
    story.tell(events.NodesAsked(37))
    story.tell(events.NodeRemoved(4, "CredentialsRefused", "its certificate was revoked", 38))
    story.tell(events.NodesAsked(39))
    story.push("train-2", (1, 3, 4), 40)
    return story


def held_up() -> Story:
    story = Story(
        "A client that its edge cannot start is waited for until the round's deadline, once", 4, RULES
    )
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.tell(events.LinkLost(2, 6))
    held = {"reason": "Unschedulable", "message": "No node has room for the client."}
    story.tell(
        events.RosterChanged((story.member(1), story.member(2, **held), *map(story.member, (3, 4))), 8)
    )
    for node in (1, 3, 4):
        story.reply("train-1", node, 8 + node)
    story.say("The grace of 30 s is over, and its edge says still that it comes.")
    story.tell(events.TimePassed(36), events.TimePassed(600))
    story.tell(events.NodesAsked(601))
    story.push("train-2", (1, 3, 4), 602)
    story.say("It comes, and is seen in the next phase.")
    story.tell(events.NodeConnected(2, 610))
    for node in (1, 3, 4):
        story.reply("train-2", node, 610 + node)
    story.tell(events.NodesAsked(615))
    return story


def edge_leaves() -> Story:
    story = Story("An edge leaves in the middle of a round, and another is expelled", 5, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4, 5), 0)
    story.reply("train-1", 1, 5)
    left = story.member(3, expected=False, reason="ClusterLeft", message="edge-03 left the federation.")
    story.tell(events.RosterChanged((*(story.member(n) for n in (1, 2, 4, 5)), left), 6))
    story.reply("train-1", 2, 8)
    story.tell(events.NodeRemoved(5, "Expelled", "the hub's operator expelled edge-05", 9))
    story.tell(events.LinkLost(5, 9))
    story.reply("train-1", 4, 10)
    story.tell(events.NodesAsked(11))
    return story


def edge_comes() -> Story:
    story = Story("An edge comes in the middle of a round: the app sees it in the next phase", 4, RULES)
    story.begin(1, 2, 3)
    story.say("Quorum is connected; the fourth is waited for until the start grace is over.")
    story.tell(events.TimePassed(10), events.NodesAsked(10))
    story.push("train-1", (1, 2, 3), 10)
    story.tell(events.NodeConnected(4, 12), events.NodesAsked(13))
    for node in (1, 2, 3):
        story.reply("train-1", node, 15)
    story.tell(events.NodesAsked(16))
    story.push("train-2", (1, 2, 3, 4), 16)
    return story


def duplicates() -> Story:
    story = Story("Duplicate, foreign, unknown and late replies change nothing", 3, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3), 0, timeout=60)
    story.reply("train-1", 1, 5)
    story.reply("train-1", 1, 6)
    story.tell(events.ReplyArrived("train-1/edge-02", 3, events.Accepted(1), 7))
    story.tell(events.ReplyArrived("never-sent", 2, events.Accepted(1), 8))
    story.reply("train-1", 2, 9)
    story.reply("train-1", 3, 10)
    story.reply("train-1", 3, 11, NOT_FINITE)
    return story


def refused_update() -> Story:
    story = Story("An update is refused and the quorum holds", 4, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.reply("train-1", 3, 4, NOT_FINITE)
    for node in (1, 2, 4):
        story.reply("train-1", node, 5)
    return story


def all_refused() -> Story:
    story = Story("Every update is refused: the second one makes the quorum impossible", 4, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4), 0)
    story.reply("train-1", 3, 4, NOT_FINITE)
    story.reply(
        "train-1",
        1,
        5,
        events.Refused("ShapeMismatch", "array bias was sent with shape (3) and came back as (4)"),
    )
    story.reply("train-1", 2, 6, NOT_FINITE)
    return story


def client_dies() -> Story:
    story = Story("A client dies in a round and is started again, another one raises", 5, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3, 4, 5), 0)
    story.tell(events.ClientDied(2, "ClientExited", "the client's process ended with status 137.", 3))
    story.tell(events.LinkLost(2, 3), events.NodeConnected(2, 6))
    story.reply("train-1", 4, 7, events.Errored(2, "ClientApp raised ValueError: no rows"))
    for node in (1, 3, 5):
        story.reply("train-1", node, 8)
    return story


def time_to_live() -> Story:
    story = Story(
        "Messages pushed without waiting outlive neither their time to live nor the deadline", 3, RULES
    )
    story.begin()
    story.push("query-1", (1, 2), 0, events.Kind.QUERY, waits=False, ttl=30)
    story.reply("query-1", 2, 5)
    story.tell(events.TimePassed(30))
    story.push("query-2", (1, 3), 40, events.Kind.QUERY, waits=False)
    story.tell(events.TimePassed(640))
    story.reply("query-2", 1, 650)
    return story


def waits_for_more() -> Story:
    story = Story("The app waits for more nodes than there are", 4, RULES)
    story.begin()
    story.tell(
        events.NodeRemoved(4, "PolicyDenied", "policy cardiology-only of edge-04 allows no such image", 1)
    )
    story.tell(events.NodesAsked(2), events.NodesAsked(3), events.NodesAsked(300), events.NodesAsked(602))
    return story


def never_starts() -> Story:
    story = Story("Too few clusters may take part: the app never starts", 4, RULES)
    story.begin(1, 2)
    denied = story.member(
        3, expected=False, reason="PolicyDenied", message="no rule of edge-03 allows demo/hospitals."
    )
    story.tell(events.RosterChanged((story.member(1), story.member(2), denied, story.member(4)), 2))
    story.tell(events.NodeRemoved(4, "AppNotLoadable", "the ClientApp of edge-04 cannot import torch", 5))
    return story


def start_deadline() -> Story:
    story = Story("Too few clusters come before the deadline", 4, RULES)
    story.begin(1, 2)
    story.tell(events.LinkLost(2, 100), events.TimePassed(130), events.TimePassed(600))
    return story


def stopped() -> Story:
    story = Story("Someone stops the training in the middle of a round", 3, RULES)
    story.begin()
    story.push("train-1", (1, 2, 3), 0)
    story.reply("train-1", 1, 4)
    story.tell(events.StopAsked("SuspendRequested", "spec.suspend is true"))
    story.reply("train-1", 2, 5)
    return story


SCENARIOS: tuple[Callable[[], Story], ...] = (
    all_report,
    straggler,
    late_replies_count,
    grace,
    over_provision,
    quorum_lost,
    link_back,
    link_gone,
    held_up,
    edge_leaves,
    edge_comes,
    duplicates,
    refused_update,
    all_refused,
    client_dies,
    time_to_live,
    waits_for_more,
    never_starts,
    start_deadline,
    stopped,
)


def path_of(scenario: Callable[[], Story]) -> Path:
    """Return where a scenario's log lies."""
    return HERE / f"{scenario.__name__.replace('_', '-')}.txt"


if __name__ == "__main__":
    for each in SCENARIOS:
        path_of(each).write_text(each().text, encoding="utf-8")
