"""HTK labels: units, round trips, and errors that name file and line."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.labels.htk import read_htk, write_htk
from melnet.data.labels.label import Label, LabelError

PJS = Path(__file__).parents[5] / "shared/data/pjs"
NAMES = st.text(st.characters(categories=["L", "M", "N", "P"]), min_size=1, max_size=5)


def write(folder, content):
    path = folder / "a.lab"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), NAMES), min_size=2, max_size=20))
def test_what_is_written_is_read_back(tmp_path_factory, timed):
    times = sorted(time / 1e7 for time, _ in timed)
    times[-1] += 1
    labels = [
        Label(start, end, name) for (start, end), (_, name) in zip(itertools.pairwise(times), timed, strict=False)
    ]
    path = tmp_path_factory.mktemp("labels") / "a.lab"
    write_htk(path, labels)
    found = read_htk(path)
    assert (found.unit, found.times) == ("phonemes", "100 ns")
    assert [label.name for label in found.labels] == [label.name for label in labels]
    for label, back in zip(labels, found.labels, strict=True):
        assert back[:2] == pytest.approx(label[:2], abs=1e-7)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_encodings(tmp_path, newline, encoding):
    path = write(tmp_path, newline.join(["0 5000000 あ", "", "5000000 9000000 ん", ""]).encode(encoding))
    assert read_htk(path).labels == [Label(0, 0.5, "あ"), Label(0.5, 0.9, "ん")]


def test_a_decimal_point_anywhere_means_seconds(tmp_path):
    found = read_htk(write(tmp_path, "0 1 a\n1 2.5 i -12.5\n"))
    assert found.labels == [Label(0, 1, "a"), Label(1, 2.5, "i")]
    assert found.times == "s"


def test_the_end_of_the_recording_cuts_off_what_lies_behind(tmp_path):
    path = write(tmp_path, "0.0 3.0 a\n3.0 3.1 i\n3.1 9.0 pau\n")
    assert read_htk(path, seconds=3.05).labels == [Label(0, 3, "a"), Label(3, 3.05, "i")]
    assert read_htk(path, seconds=2.9).labels == [Label(0, 2.9, "a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.0 1.0 a\n0.5 2.0 i\n", r"line 2: 'i' begins at 0\.5000 s, before the label before it ends, at 1\.0000 s"),
        ("0.0 1.0 a\n\n2.0 1.5 i\n", r"line 3: 'i' ends at 1\.5000 s, before it begins, at 2\.0000 s"),
        ("1.0 2.0 a\n0.0 1.0 i\n", r"line 2: 'i' begins at 0\.0000 s"),
        ("0.0 1.0 a\n9.0 9.5 i\n", r"line 2: 'i' begins at 9\.0000 s, but the recording ends at 3\.0000 s"),
        ("-1.0 1.0 a\n", "line 1: 'a' is sung from -1 s to 1 s, which are no times"),
        ("0.0 1.0\n", r"line 1: expected start, end and name, but it is '0\.0 1\.0'"),
        ("0.0 1.0 a b\n", "line 1: expected start, end and name"),
        ("0.0 nan a\n", "line 1: expected start, end and name"),
        ("0 " + "9" * 400 + " a\n", "line 1: .* which are no times"),
        ("0 1 a\n1 2 i\n", "line 2: the labels end after 2e-07 s: whole numbers are times in 100 ns"),
        ("\n \n", "holds no labels"),
        ("0 1 あ\n1 2 い".encode("shift-jis"), r"line 1: neither UTF-8 nor UTF-16 .* iconv -f SHIFT_JIS"),
        (b"0 9000000 a\n9000000 9900000 \xff", "line 2: neither UTF-8"),
        ("0 9000000 a".encode("utf-16-le"), "line 1: holds NUL"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    with pytest.raises(LabelError, match=rf"^[^\n]*a\.lab[:,] {message}[^\n]*$"):
        read_htk(write(tmp_path, content), seconds=3.0)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("labels"), content)
    try:
        found = read_htk(path, seconds=5.0).labels
    except LabelError as error:
        assert "a.lab" in str(error)
        return
    for label in found:
        assert 0 <= label.start <= label.end <= 5 and label.name
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))


@pytest.mark.skipif(not PJS.is_dir(), reason="the corpus PJS is not here")
def test_every_label_of_pjs_is_read():
    soundfile = pytest.importorskip("soundfile")
    paths = sorted(PJS.glob("*.lab"))
    assert len(paths) == 49
    for path in paths:
        seconds = soundfile.info(path.with_suffix(".flac")).duration
        lines = path.read_text().split("\n")
        found = read_htk(path, seconds)
        # Of some songs the last rest, or all of it, lies behind the end.
        assert sum(bool(line.strip()) for line in lines) - len(found.labels) in (0, 1)
        assert found.labels[0].start == 0 and abs(found.labels[-1].end - seconds) < 0.3
