"""Which files a corpus holds, and the output names made of theirs."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.files import as_unicode, named_audio, output_names, walk
from stages.corpus.manifest import MANIFEST


def names(*paths):
    return output_names([Path(os.fsdecode(path)) for path in paths])


def found(root):
    return {as_unicode(item.path): item.problem for item in walk(root)}


def test_the_suffix_of_audio_becomes_flac():
    assert names("a.wav", "b/c.MP3", "d e.flac", "...And So On.opus") == [
        "a.flac",
        "b/c.flac",
        "d e.flac",
        "...And So On.flac",
    ]


def test_other_suffixes_are_kept():
    assert names("take", "take.1", "a.wav", "a.txt", "a.m4a") == [
        "take.flac",
        "take.1.flac",
        "a.flac",
        "a.txt.flac",
        "a.m4a.flac",
    ]


def test_members_of_a_collision_keep_their_full_name():
    assert names("a.wav", "a.mp3", "b.wav") == ["a.wav.flac", "a.mp3.flac", "b.flac"]
    assert names("A.wav", "a.wav") == ["A.wav.flac", "a.wav.flac"]
    assert names("X/a.wav", "x/a.wav") == ["X/a.wav.flac", "x/a.wav.flac"]


@pytest.mark.parametrize(
    "paths",
    [
        ["a.wav", "a.mp3", "a.wav.wav"],
        ["A.wav", "a.wav", "A.wav.wav", "a.wav.WAV"],
        ["a.wav", "a.flac/b.wav"],
        ["a.wav", "a.flac/b.wav", "a.wav.flac/c.wav"],
        [b"a\xff.wav", b"a\xfe.wav", "a\\xff.wav"],
        ["x" * 251 + ".wav", "x" * 251 + ".mp3", "é" * 125 + ".wav"],
        [f"{MANIFEST}/a.wav", f"{MANIFEST.upper()}/a.wav"],
        ["/".join(["d" * 200] * 15) + "/a.wav"],
    ],
)
def test_hostile_names_stay_apart_and_can_be_made(tmp_path, paths):
    outputs = names(*paths)
    assert len(set(outputs)) == len(paths)
    (tmp_path / MANIFEST).touch()
    for output in outputs:
        assert output.encode().endswith(b".flac")
        path = tmp_path / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)


PART = st.sampled_from(["a", "A", "a.wav", "a.flac", "a.WAV", "a.mp3", "a.wav.flac", "b"])


@given(st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), unique=True, max_size=12))
def test_output_names_are_unique_and_no_folders_of_each_other(paths):
    outputs = names(*paths)
    parents = {str(parent) for output in outputs for parent in Path(output).parents}
    assert len(set(outputs)) == len(paths)
    assert parents.isdisjoint(outputs)


def test_names_do_not_depend_on_the_order():
    paths = ["a.wav", "a.mp3", "A.wav", "a.wav.wav", "b.wav"]
    assert names(*reversed(paths)) == names(*paths)[::-1]


def test_names_that_are_not_utf8_become_text_of_their_own():
    escaped = as_unicode(Path(os.fsdecode(b"a\xff.wav")))
    assert escaped.startswith("a\\xff.wav (")
    assert escaped != as_unicode(Path("a\\xff.wav")) == "a\\xff.wav"


def test_files_links_and_folders(tmp_path):
    root = tmp_path / "corpus"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    outside = tmp_path / "outside.wav"
    for path in (
        outside,
        root / "a.wav",
        root / "sub" / "deep" / "b.wav",
        root / ".hidden.wav",
        root / ".git" / "c.wav",
    ):
        path.touch()
    (root / "inside.wav").symlink_to("sub/deep/b.wav")
    (root / "out.wav").symlink_to(outside)
    (root / "loop.wav").symlink_to("loop.wav")
    (root / "nowhere.wav").symlink_to("nothing")
    (root / "folder").symlink_to("sub")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe.wav")
    assert found(root) == {
        "a.wav": None,
        "sub/deep/b.wav": None,
        "inside.wav": None,
        ".hidden.wav": "hidden file",
        "out.wav": "link out of the corpus",
        "loop.wav": "broken link: Too many levels of symbolic links",
        "nowhere.wav": "broken link: No such file or directory",
        "folder": "link to a folder, which is not followed",
        "up": "link out of the corpus",
        "pipe.wav": "not a regular file",
    }


def test_the_corpus_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.wav").touch()
    (tmp_path / "corpus").symlink_to("real")
    assert found(tmp_path / "corpus") == {"a.wav": None}


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def deny(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert found(tmp_path) == {"closed": "folder cannot be read: Permission denied"}


def test_what_is_named_like_audio():
    assert all(map(named_audio, map(Path, ["a.wav", "b/a.MP3", "a.m4a", "..a.opus"])))
    assert not any(map(named_audio, map(Path, ["a.txt", "LICENSE", "._a.wav", "a.wav.dvc"])))
