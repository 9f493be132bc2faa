"""Files and folders appear complete or not at all."""

import os
from pathlib import Path

import pytest

from melnet.files import written, written_folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_written_appears_with_its_content_in_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "result.json"
    with written(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not path.exists()
    assert contents(path.parent) == {"result.json": "new"}


def test_written_replaces_only_on_success(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), written(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert contents(tmp_path) == {"result.json": "old"}
    with written(path) as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"result.json": "new"}


def test_written_takes_the_longest_names(tmp_path):
    path = tmp_path / ("x" * 250 + ".flac")
    with written(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("helper", [written, written_folder])
def test_results_are_as_readable_as_the_umask_says(tmp_path, helper):
    previous = os.umask(0o027)
    try:
        with helper(tmp_path / "result") as temporary:
            temporary.touch()
    finally:
        os.umask(previous)
    expected = 0o640 if helper is written else 0o750
    assert (tmp_path / "result").stat().st_mode & 0o777 == expected


def test_written_folder_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "data" / "24k"
    for name in ("first", "second"):
        with written_folder(path) as temporary:
            assert temporary.parent == path.parent
            (temporary / name).write_text(name)
    assert contents(path) == {"second": "second"}
    assert list(path.parent.iterdir()) == [path]


def test_written_folder_keeps_the_old_on_an_error(tmp_path):
    path = tmp_path / "24k"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), written_folder(path) as temporary:
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert contents(path) == {"old": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_written_folder_puts_the_old_back_when_the_new_cannot_take_its_place(tmp_path):
    path = tmp_path / "24k"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(FileNotFoundError), written_folder(path) as temporary:
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
    with written_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert not path.is_symlink()
    assert contents(path) == {"new": "new"}
    assert contents(target) == {"kept": "kept"}


def test_written_folder_removes_what_a_killed_process_left(tmp_path):
    for name in (".tmp-24k-abc", ".tmp-24k-abc-replaced", ".tmp-other-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    with written_folder(tmp_path / "24k"):
        pass
    assert sorted(item.name for item in tmp_path.iterdir()) == [".tmp-other-abc", "24k"]
