"""Tests for reading the owner's directory, and following logs."""

import concurrent.futures
import pathlib
import threading

from edge_agent import backoff, resources, tails

POLICY = """
apiVersion: hanse.dev/v1alpha1
kind: EdgePolicy
metadata: {name: owner, namespace: default}
spec: {rules: [{name: all}]}
"""


def test_a_change_is_seen_and_an_error_changes_nothing(tmp_path: pathlib.Path) -> None:
    """The last good manifests stay in force until the mistake is mended."""
    directory = resources.Directory(tmp_path)
    assert directory.read() == resources.Resources()
    (tmp_path / "policy.yaml").write_text(POLICY)
    good = directory.read()
    assert [policy.name for policy in good.policies] == ["owner"]
    assert directory.read() is good
    (tmp_path / "policy.yaml").write_text(POLICY + "  surprise: 1\n")
    assert directory.read() is good
    (tmp_path / "policy.yaml").write_text(POLICY.replace("owner", "other-name"))
    assert [policy.name for policy in directory.read().policies] == ["other-name"]


def test_who_comes_while_another_reads_gets_what_that_one_finds(tmp_path: pathlib.Path) -> None:
    """An agent that starts reads while it joins: it must not say meanwhile that nothing is declared."""
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text(POLICY.replace("owner", f"owner-{number}"))
    directory = resources.Directory(tmp_path)
    together = threading.Barrier(4)

    def read() -> int:
        together.wait()
        return len(directory.read().policies)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {reading.result() for reading in [pool.submit(read) for _ in range(4)]} == {20}


def test_removing_the_manifests_withdraws_everything(tmp_path: pathlib.Path) -> None:
    """Also when the directory itself goes."""
    declared = tmp_path / "declared"
    declared.mkdir()
    (declared / "policy.yaml").write_text(POLICY)
    directory = resources.Directory(declared)
    assert directory.read().policies
    (declared / "policy.yaml").unlink()
    assert directory.read() == resources.Resources()
    declared.rmdir()
    assert directory.read() == resources.Resources()


def test_a_tail_gives_each_whole_line_once(tmp_path: pathlib.Path) -> None:
    """Half lines wait for their end; what came before it began is not told."""
    path = tmp_path / "client.log"
    path.write_text("old\n")
    tail = tails.Tail(path)
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert tail.read_new() == ["one"]
        file.write("o\n")
        file.flush()
        assert tail.read_new() == ["two"]
    assert tail.read_new() == []
    assert tails.Tail(tmp_path / "none").read_new() == []


def test_a_tail_skips_what_comes_too_fast(tmp_path: pathlib.Path) -> None:
    """It stays bounded and ends with the last line."""
    path = tmp_path / "client.log"
    path.touch()
    tail = tails.Tail(path)
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    lines = tail.read_new()
    assert lines[-1] == "99999"
    assert sum(len(line) + 1 for line in lines) <= tails.BYTES_PER_LOOK


def test_backoff_grows_to_its_bound() -> None:
    """Never zero, never above the longest, the same for the same seed."""
    import random

    waits = [backoff.seconds(failures, random.Random(7)) for failures in range(1, 40)]
    assert waits == sorted(waits)
    assert 0 < waits[0] <= backoff.FIRST_SECONDS
    assert waits[-1] <= backoff.LONGEST_SECONDS
