"""Two contenders for one Lease, under a virtual clock."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest

from federation.kube import leases
from tests.fakes import leases as fakes

pytestmark = pytest.mark.looptime
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def contender(reach: fakes.Reach, identity: str) -> leases.Elector:
    loop = asyncio.get_running_loop()
    return leases.Elector(
        reach,
        "hanse-system",
        "coordinator",
        identity,
        now=lambda: START + dt.timedelta(seconds=loop.time()),
        monotonic=loop.time,
        jitter=lambda: 0.5,
    )


async def test_the_first_leads_and_the_second_waits() -> None:
    """While the holder renews, the other never gets it."""
    server = fakes.FakeLeases()
    first, second = contender(server.reach(), "a"), contender(server.reach(), "b")
    async with first.leading():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.acquire(), 600)
        assert (first.held, second.held, second.holder) == (True, False, "a")
        assert set(server.writes) == {"a"}


async def test_a_leader_that_is_gone_is_followed_after_the_lease_ends() -> None:
    """The second takes over between one and two lease times after the last renewal, and counts it."""
    server = fakes.FakeLeases()
    reach = server.reach()
    first, second = contender(reach, "a"), contender(server.reach(), "b")
    await first.acquire()  # and never renews: the process is gone
    began = asyncio.get_running_loop().time()
    await second.acquire()
    assert 15 <= asyncio.get_running_loop().time() - began <= 30
    assert server.stored is not None
    assert server.stored["spec"]["leaseTransitions"] == 1


async def test_a_leader_cut_off_stops_before_the_next_begins() -> None:
    """It loses the lease after 10 s, the other gets it after 15 s at the earliest."""
    server = fakes.FakeLeases()
    reach = server.reach()
    first, second = contender(reach, "a"), contender(server.reach(), "b")
    time = asyncio.get_running_loop().time
    ended: dict[str, float] = {}

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended["work"] = time()

    async def cut() -> None:
        await asyncio.sleep(5)
        reach.cut = True

    async def follow() -> None:
        await asyncio.sleep(1)
        await second.acquire()
        ended["second leads"] = time()

    cutting, following = asyncio.create_task(cut()), asyncio.create_task(follow())
    with pytest.raises(leases.OutOfReach, match="not renewed within 10 s"):
        await first.lead(work)
    await asyncio.gather(cutting, following)
    assert ended["work"] < ended["second leads"]
    assert not first.held


async def test_who_does_not_renew_leads_no_longer_whether_or_not_it_has_noticed() -> None:
    """As after a process that stood still: the time alone decides."""
    first = contender(fakes.FakeLeases().reach(), "a")
    await first.acquire()
    await asyncio.sleep(9)
    assert first.held
    await asyncio.sleep(1)
    assert not first.held


async def test_who_was_cut_off_leads_again_unless_another_does() -> None:
    """Nobody took its place: it waits, and leads. Another did: that is said, and not waited for."""
    server = fakes.FakeLeases()
    reach = server.reach()
    first, second = contender(reach, "a"), contender(server.reach(), "b")

    async def cut_off() -> None:
        await asyncio.sleep(3)
        reach.cut = True
        with pytest.raises(leases.OutOfReach):
            await first.keep()

    await first.acquire()
    await cut_off()
    again = asyncio.create_task(first.acquire(unless_taken=True))
    await asyncio.sleep(600)
    assert not again.done()
    reach.cut = False
    await again
    assert first.held
    await cut_off()
    await second.acquire()
    again = asyncio.create_task(first.acquire(unless_taken=True))
    await asyncio.sleep(600)
    assert not again.done()
    reach.cut = False
    with pytest.raises(leases.LeaseLost, match="b holds it now"):
        await again
    assert not first.held


async def test_a_short_cut_costs_nothing() -> None:
    """An API server that restarts within the renew time does not end the leader."""
    server = fakes.FakeLeases()
    reach = server.reach()
    first = contender(reach, "a")
    async with first.leading() as keeping:
        await asyncio.sleep(60)
        reach.cut = True
        await asyncio.sleep(6)
        reach.cut = False
        await asyncio.sleep(60)
        assert not keeping.done()
        assert first.held


async def test_a_clean_end_lets_the_next_begin_at_once() -> None:
    """A released Lease has no holder; the other need not wait for its end."""
    server = fakes.FakeLeases()
    first, second = contender(server.reach(), "a"), contender(server.reach(), "b")

    async def work() -> str:
        await asyncio.sleep(30)
        return "done"

    async def follow() -> float:
        await asyncio.sleep(1)
        await second.acquire()
        return asyncio.get_running_loop().time()

    following = asyncio.create_task(follow())
    assert await first.lead(work) == "done"
    assert 30 <= await following <= 35


@pytest.mark.parametrize("work_seconds", [1.0, 3.0], ids=["between renewals", "during a renewal"])
async def test_a_slow_server_is_waited_for_at_the_end(work_seconds: float) -> None:
    """An answer that takes longer than a retry, and a renewal that was written but never answered."""
    server = fakes.FakeLeases()
    reach = server.reach()
    reach.answer_seconds = 2.5
    first = contender(reach, "a")
    async with first.leading():
        await asyncio.sleep(work_seconds)
    assert server.stored is not None
    assert server.stored["spec"]["holderIdentity"] == ""
    assert asyncio.get_running_loop().time() < 2.5 + work_seconds + leases.RELEASE_SECONDS + 1e-6


async def test_a_lease_that_another_took_is_left_to_it() -> None:
    """Who ends gives up only what is its own."""
    server = fakes.FakeLeases()
    first = contender(server.reach(), "a")
    async with first.leading():
        assert server.stored is not None
        server.stored["spec"]["holderIdentity"] = "b"
        server.stored["metadata"]["resourceVersion"] = "another"
    assert server.stored["spec"]["holderIdentity"] == "b"


async def test_the_work_s_own_error_comes_out_and_the_lease_is_released() -> None:
    """An error of the work is not taken for a lost Lease."""
    server = fakes.FakeLeases()
    first = contender(server.reach(), "a")

    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await first.lead(work)
    assert server.stored is not None
    assert server.stored["spec"]["holderIdentity"] == ""


async def test_a_leader_renews_with_one_request_in_two_seconds() -> None:
    """Who leads needs not read what only it writes."""
    server = fakes.FakeLeases()
    reach = server.reach()
    async with contender(reach, "a").leading():
        before = reach.requests
        await asyncio.sleep(100)
        assert 45 <= reach.requests - before <= 50


async def test_who_stole_the_lease_is_named() -> None:
    """Somebody edits the Lease by hand: the leader gives way at its next renewal."""
    server = fakes.FakeLeases()
    first = contender(server.reach(), "a")
    async with first.leading() as keeping:
        thief = server.reach()
        stolen = await thief.get("Lease", "coordinator", "hanse-system")
        stolen["spec"]["holderIdentity"] = "thief"
        await thief.replace(stolen)
        with pytest.raises(leases.LeaseLost, match="thief holds it now"):
            await keeping


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_times_that_would_let_two_lead_are_refused(times: tuple[float, float, float]) -> None:
    """The lease must outlast the renewal's deadline, and that several tries."""
    with pytest.raises(ValueError, match="want lease_seconds"):
        leases.Timing(*times)
