"""What local processes leave, and how it goes."""

import os
import pathlib

import pytest

from federation.runtime import processes

OWNER = os.getuid() or 65534
"""Somebody whom permissions bind: root may remove anything."""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the child does little before it ends
def test_read_only_directories_go_too(tmp_path: pathlib.Path) -> None:
    """Without being root; and a link is removed, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").touch()
    state = tmp_path / "state"
    data = state / "below" / "data"
    data.mkdir(parents=True)
    (data / "rows.csv").write_text("1")
    (data.parent / "link").symlink_to(outside)
    for place in (data / "rows.csv", data, data.parent, state, outside):
        os.chown(place, OWNER, -1)
    data.chmod(0o500)

    child = os.fork()
    if child == 0:
        os.chdir(state)
        if os.getuid() != OWNER:
            os.setgroups([])
            os.setuid(OWNER)
        processes.remove_tree(pathlib.Path("below"))
        processes.remove_tree(pathlib.Path("below"))
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert list(state.iterdir()) == []
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o755
