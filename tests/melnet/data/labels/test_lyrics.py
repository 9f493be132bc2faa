"""Lyrics and subtitles: times of lines become times of letters."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.labels.label import LabelError
from melnet.data.labels.read import read_labels


def read(folder, name, content, seconds=None):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(folder / name, seconds)


def timed(labels):
    return [(round(start, 3), round(end, 3), name) for start, end, name in labels]


def test_letters_of_a_line_share_its_time(tmp_path):
    found = read(tmp_path, "a.lrc", "[ti: A song]\n[00:10.00]Oh, no!\n[00:11.00]\n[01:00.5]é♪\n", seconds=61.0)
    assert found.unit == "characters"
    assert timed(found.labels) == [
        (10, 10.25, "o"),
        (10.25, 10.5, "h"),
        (10.5, 10.75, "n"),
        (10.75, 11, "o"),
        (60.5, 61, "é"),
    ]


def test_no_letter_lasts_longer_than_half_a_second(tmp_path):
    found = read(tmp_path, "a.lrc", "[00:01.00]ab\n[00:09.00]c\n", seconds=20.0)
    assert timed(found.labels) == [(1, 1.5, "a"), (1.5, 2, "b"), (9, 9.5, "c")]


def test_times_of_words_repeated_lines_and_offset(tmp_path):
    words = read(tmp_path, "a.lrc", "[offset:+1000]\n[00:01.00]<00:01.00>a <00:01.40>b<00:01.50>\n").labels
    assert timed(words) == [(0, 0.4, "a"), (0.4, 0.5, "b")]
    chorus = read(tmp_path, "b.lrc", "[00:01.00][00:03.00]a\n[00:02.00]b\n", seconds=9.0).labels
    assert timed(chorus) == [(1, 1.5, "a"), (2, 2.5, "b"), (3, 3.5, "a")]


def test_subtitles_of_several_lines_with_markup(tmp_path):
    text = "\ufeff1\r\n00:00:01,000 --> 00:00:02,000 X1:0\r\n<i>A</i>\r\n{\\an8}b\r\n\r\n\r\n"
    text += "2\r\n00:01:00.500 --> 00:01:00.600\r\n7\r\n"
    found = read(tmp_path, "a.srt", text, seconds=70.0)
    assert found.unit == "characters"
    assert timed(found.labels) == [(1, 1.5, "a"), (1.5, 2, "b"), (60.5, 60.6, "7")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.lrc", "[00:02.00]a\n[00:01.00]b\n", "line 2: 1 s lies before the time before it, 2 s"),
        ("a.lrc", "[00:01.00]a\nb\n", r"line 2: expected a time such as \[01:23\.45\], but it is 'b'"),
        ("a.lrc", "[00:01.00][00:02.00]a<00:03.00>b\n", "line 1: .* cannot have times of words"),
        ("a.lrc", "[offset:soon]\n", "line 1: the offset 'soon' is no whole number of milliseconds"),
        ("a.lrc", "[ti:none]\n[00:01.00]\n", "holds no words"),
        (
            "a.lrc",
            "[00:01.00]a\n[00:30.00]b\n[00:31.00]\n",
            r"line 2: 'b' begins at 30\.0000 s, but the recording ends",
        ),
        ("a.lrc", "[00:01.00]あ\n".encode("shift-jis"), "line 1: neither UTF-8"),
        ("a.srt", "1\n00:00:02,000 --> 00:00:01,000\na\n", "line 2: 'a' ends at .* before it begins"),
        (
            "a.srt",
            "1\n00:00:01,000 --> 00:00:03,000\nabcdef\n\n2\n00:00:02,000 --> 00:00:03,000\nb\n",
            r"line 6: 'b' begins at 2\.0000 s, before the label before it ends, at 3\.0000 s",
        ),
        ("a.srt", "1\n00:00:01,000 -> 00:00:03,000\na\n", "line 2: expected the number or the times of a subtitle"),
        ("a.srt", "", "holds no words"),
    ],
)
def test_errors_name_file_and_line(tmp_path, name, content, message):
    with pytest.raises(LabelError, match=rf"^[^\n]*{name}[:,] {message}[^\n]*$"):
        read(tmp_path, name, content, seconds=10.0)


PIECES = [
    "[00:01.00]",
    "[00:02.50]",
    "<00:02.00>",
    "a b",
    "1",
    "\n",
    "\n\n",
    "00:00:01,000 --> 00:00:02,000",
    "[x:y]",
    "--",
]


@settings(deadline=None)
@given(st.sampled_from(["a.lrc", "a.srt"]), st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_pieces_are_read_or_refused(tmp_path_factory, name, pieces):
    try:
        found = read(tmp_path_factory.mktemp("words"), name, "".join(pieces), seconds=3.0).labels
    except LabelError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    assert found
    assert all(before.end <= after.start + 1e-9 for before, after in itertools.pairwise(found))
    assert all(0 <= label.start <= label.end <= 3 + 1e-9 and len(label.name) == 1 for label in found)
