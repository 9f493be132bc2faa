"""Files and folders appear complete or not at all."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melnet.data.atomic import atomic_folder, atomic_write


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_written_appears_with_its_content_in_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "result.json"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not path.exists()
    assert contents(path.parent) == {"result.json": "new"}


def test_written_replaces_only_on_success(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert contents(tmp_path) == {"result.json": "old"}
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"result.json": "new"}


def test_written_takes_the_longest_names(tmp_path):
    path = tmp_path / ("x" * 250 + ".flac")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("helper", [atomic_write, atomic_folder])
def test_results_are_as_readable_as_the_umask_says(tmp_path, helper):
    previous = os.umask(0o027)
    try:
        with helper(tmp_path / "result") as temporary:
            temporary.touch()
    finally:
        os.umask(previous)
    expected = 0o640 if helper is atomic_write else 0o750
    assert (tmp_path / "result").stat().st_mode & 0o777 == expected


def test_written_folder_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "data" / "24k"
    for name in ("first", "second"):
        with atomic_folder(path) as temporary:
            assert temporary.parent == path.parent
            (temporary / name).write_text(name)
    assert contents(path) == {"second": "second"}
    assert list(path.parent.iterdir()) == [path]


def test_written_folder_keeps_the_old_on_an_error(tmp_path):
    path = tmp_path / "24k"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert contents(path) == {"old": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_written_folder_puts_the_old_back_when_the_new_cannot_take_its_place(tmp_path):
    path = tmp_path / "24k"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_folder(path) as temporary:
        temporary.rename(tmp_path / "elsewhere")
    assert contents(path) == {"old": "old"}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["24k", "elsewhere"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_written_folder_replaces_a_file_or_a_link_but_not_its_target(tmp_path, kind):
    path, target = tmp_path / "24k", tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    if kind == "file":
        path.write_text("old")
    else:
        path.symlink_to(target)
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert not path.is_symlink()
    assert contents(path) == {"new": "new"}
    assert contents(target) == {"kept": "kept"}


KILLED = """
import os, signal, sys
from pathlib import Path
from melnet.data.atomic import {helper}

with {helper}(Path(sys.argv[1])) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_half(helper, path):
    """What a process leaves that is killed while it writes ``path``."""
    code = KILLED.format(helper=helper.__name__)
    result = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[3])
    assert result.returncode == -signal.SIGKILL


@pytest.mark.parametrize("helper", [atomic_write, atomic_folder])
def test_what_a_killed_process_left_is_removed_at_the_next_use(tmp_path, helper):
    path, other = tmp_path / "result", tmp_path / "result-2"
    leave_half(helper, path)
    leave_half(helper, other)
    assert len(list(tmp_path.glob(".tmp-*"))) == 2
    with helper(path):
        assert len(list(tmp_path.glob(".tmp-*"))) == 2  # its own, and the other's, whose name begins like this one's
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    with helper(other):
        pass
    assert sorted(item.name for item in tmp_path.iterdir()) == ["result", "result-2"]


def test_writers_of_different_files_of_a_folder_leave_each_other_alone(tmp_path):
    names = [f"{stem}{suffix}" for stem in ("a", "a-b", "a.b", "tier-1", "tier-1-2") for suffix in ("", ".json")]

    def write(name):
        for number in range(30):
            with atomic_write(tmp_path / name) as temporary:
                temporary.write_text(f"{name} {number}")

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write, names))
    assert contents(tmp_path) == {name: f"{name} 29" for name in names}


def test_written_folder_killed_between_its_two_renames_gives_the_old_back(tmp_path, monkeypatch):
    path = tmp_path / "24k"
    with atomic_folder(path) as temporary:
        (temporary / "old").write_text("old")
    rename = Path.rename

    def killed(self, target):
        if target == path:
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        patch.setattr("melnet.data.atomic._remove", lambda path: None)  # as little as a killed process would
        with pytest.raises(SystemExit), atomic_folder(path) as temporary:
            (temporary / "new").write_text("new")
    assert not path.exists()
    with pytest.raises(RuntimeError, match="stop"), atomic_folder(path):
        raise RuntimeError("stop")
    assert contents(path) == {"old": "old"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("helper", [atomic_write, atomic_folder])
def test_content_and_names_are_on_the_disk_when_it_is_done(tmp_path, helper, monkeypatch):
    synced = []
    monkeypatch.setattr("melnet.data.atomic._sync", synced.append)
    with helper(tmp_path / "result") as temporary:
        if helper is atomic_folder:
            (temporary / "sub").mkdir()
            (temporary / "sub" / "file").write_text("new")
    inside = [temporary / name for name in ("", "sub", "sub/file")] if helper is atomic_folder else [temporary]
    assert sorted(synced[:-1]) == inside
    assert synced[-1] == tmp_path
