"""The end of a training survives as text of a few kilobytes, and nonsense is nothing."""

import dataclasses

import pytest

from coordinator.clients import last_words
from coordinator.planning import snapshot

DONE = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "pvc://m/20", "5b" * 32, 20)
LONG = {
    "as it is": DONE,
    "long message": dataclasses.replace(DONE, message="ä" * 9000),
    "long tail": dataclasses.replace(DONE, succeeded=False, log_tail=("\u2028" * 500,) * 40),
    "long place": dataclasses.replace(DONE, model_uri="s3://" + "x" * 2000, message='"' * 3000),
}


@pytest.mark.parametrize("finished", LONG.values(), ids=LONG)
def test_what_matters_survives(finished: snapshot.Finished) -> None:
    """Result, reason and model come back whole from what kubelet keeps."""
    text = last_words.write(finished)
    assert len(text.encode()) <= last_words.MAXIMUM_BYTES
    found = last_words.read(text)
    assert found is not None
    assert (found.succeeded, found.reason) == (finished.succeeded, finished.reason)
    assert (found.model_uri, found.model_sha256, found.model_round) == (finished.model_uri, "5b" * 32, 20)
    assert finished.message.startswith(found.message)


NONSENSE = {
    "empty": "",
    "no JSON": "Traceback",
    "a client's": '{"reason": "OutOfMemory", "message": "x"}',
    "bad digest": '{"succeeded": true, "reason": "AllRoundsDone", "modelSha256": "zz"}',
    "bad reason": '{"succeeded": true, "reason": "all done"}',
    "two lines": '{"succeeded": true, "reason": "AllRoundsDone", "modelUri": "a\\nb"}',
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_nothing(text: str) -> None:
    """What is no end of a training is not taken for one."""
    assert last_words.read(text) is None
