"""An aggregator that the hub will not have: real processes, and a hub that changes its mind."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.wire import denials
from tests.conformance import hanse_host
from tests.fakes import hub
from tests.process import federations

pytestmark = [pytest.mark.process]

DENIALS: dict[denials.Reason, dict[str, object]] = {
    denials.Reason.UNKNOWN_TRAINING: {"training": "conformance/case"},
    denials.Reason.UNSUPPORTED_PROTOCOL: {
        "their_oldest": 1, "their_newest": 1, "our_oldest": 2, "our_newest": 3,
    },
    denials.Reason.REVOKED: {"identity": "the aggregator of an earlier conformance/case"},
}  # fmt: skip


@pytest.mark.parametrize("reason", DENIALS)
async def test_an_aggregator_that_is_refused_costs_nothing_that_was_trained(
    reason: denials.Reason, tmp_path: Path
) -> None:
    """It ends without a word of the training's end; another one goes on from the journal."""

    async def refuse(the_hub: hub.Hub) -> None:
        await the_hub.until(lambda report: report.round >= 2)
        the_hub.refuse(reason, **DENIALS[reason])

    app = federations.Federation(federations.honest(1)).write(tmp_path / "federation") / "app"
    slow = {"behaviour": "pause", "from-round": 2, "seconds": 1.5}
    await hanse_host.run(
        app, [{"name": "a"}, {"name": "b", **slow}], {"rounds": 3}, tmp_path / "run",
        spec={"clusters": {"minimum": 2}}, disturb=refuse,
    )  # fmt: skip
    log = (tmp_path / "run" / "logs" / "aggregator.log").read_text()
    assert log.count("the hub refuses this aggregator") == 1
    assert "server app runs again, the journal answers" in log
    assert (tmp_path / "run" / "models" / hanse_host.NAMESPACE / hanse_host.NAME / "3").is_dir()
