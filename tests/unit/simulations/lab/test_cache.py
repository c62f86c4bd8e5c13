"""The shared cache: nobody sees a half-made thing, and one process at a time makes things."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from simulations.lab import cache


def test_the_cache_is_where_xdg_says() -> None:
    """XDG_CACHE_HOME first, then the home directory."""
    assert cache.directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/hanse/lab")
    assert cache.directory({"HOME": "/h"}) == Path("/h/.cache/hanse/lab")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails in its middle leaves the old file and nothing else."""
    path = tmp_path / "group" / "program"
    with cache.new_file(path, mode=0o755) as partial:
        partial.write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), cache.new_file(path) as partial:
        partial.write_text(f"half {1 // 0}")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """And what fails in its middle leaves the old one."""
    path = tmp_path / "tree"
    for content in ("one", "two"):
        with cache.new_directory(path) as partial:
            (partial / "file").write_text(content)
    with pytest.raises(RuntimeError), cache.new_directory(path) as partial:
        raise RuntimeError
    assert (path / "file").read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The second target wins."""
    for target in ("one", "two"):
        cache.link(tmp_path / "bin" / "kubelet", tmp_path / target)
    assert (tmp_path / "bin" / "kubelet").readlink() == tmp_path / "two"


def test_what_an_interrupted_run_left_is_swept(tmp_path: Path) -> None:
    """Partial files and directories go, the others stay."""
    (tmp_path / f"{cache.PARTIAL}7-kubelet").write_text("half")
    (tmp_path / f"{cache.PARTIAL}x").mkdir()
    (tmp_path / "kubelet").write_text("whole")
    cache.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kubelet"]


def _hold(root: Path, said: multiprocessing.SimpleQueue[str]) -> None:
    with cache.locked(root, "programs", said.put):
        said.put("held")


def test_a_second_process_waits_and_says_so(tmp_path: Path) -> None:
    """It goes on as soon as the first is done."""
    context = multiprocessing.get_context("spawn")
    said: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    with cache.locked(tmp_path, "programs", print):
        other = context.Process(target=_hold, args=(tmp_path, said))
        other.start()
        assert said.get() == "another process is preparing programs; waiting for it"
    assert said.get() == "held"
    other.join()
    other.close()
