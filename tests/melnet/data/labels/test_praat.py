"""TextGrids: all forms that Praat writes, the choice of the tier, and damage."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melnet.data.labels.label import Label, LabelError
from melnet.data.labels.praat import read_textgrid

INTERVALS = [(0, 0.5, ""), (0.5, 1.25, "a"), (1.25, 2, 'say "t"')]
EXPECTED = [Label(0.5, 1.25, "a"), Label(1.25, 2, 'say "t"')]


def long(*tiers):
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 2 \ntiers? <exists> \n'
    text = f"{head}size = {len(tiers)} \nitem []: \n"
    for number, (name, intervals) in enumerate(tiers, 1):
        text += f'    item [{number}]:\n        class = "IntervalTier" \n        name = "{name}" \n'
        text += f"        xmin = 0 \n        xmax = 2 \n        intervals: size = {len(intervals)} \n"
        for index, (start, end, label) in enumerate(intervals, 1):
            quoted = label.replace('"', '""')
            text += f"        intervals [{index}]:\n            xmin = {start} \n            xmax = {end} \n"
            text += f'            text = "{quoted}" \n'
    return text


def short(name, intervals):
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "2", "<exists>", "1"]
    lines += ['"IntervalTier"', f'"{name}"', "0", "2", str(len(intervals))]
    for start, end, label in intervals:
        lines += [str(start), str(end), '"{}"'.format(label.replace('"', '""'))]
    return "\n".join(lines) + "\n"


def as_json(name, intervals):
    tier = {"type": "interval", "entries": [[start, end, label] for start, end, label in intervals]}
    return json.dumps({"start": 0, "end": 2, "tiers": {name: tier}})


def write(folder, content, encoding="utf-8"):
    path = folder / "a.TextGrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("content", [long(("any", INTERVALS)), short("any", INTERVALS), as_json("any", INTERVALS)])
def test_every_form_is_read(tmp_path, content, encoding):
    found = read_textgrid(write(tmp_path, content, encoding), seconds=2.0)
    assert (found.labels, found.unit) == (EXPECTED, "phonemes")


@pytest.mark.parametrize("name", ["phones", "Phonemes", "Anna - phones"])
def test_the_tier_of_phonemes_is_taken(tmp_path, name):
    words = [(0, 2, "at")]
    assert read_textgrid(write(tmp_path, long(("words", words), (name, INTERVALS)))).labels == EXPECTED


def test_errors_name_file_tier_and_interval(tmp_path):
    def refused(content, message, seconds=2.0):
        with pytest.raises(LabelError, match=rf"^[^\n]*a\.TextGrid[:,] {message}[^\n]*$"):
            read_textgrid(write(tmp_path, content), seconds)

    refused(long(("words", INTERVALS), ("notes", INTERVALS)), r"one interval tier .* there is 'words', 'notes'")
    refused(
        long(("phones", INTERVALS), ("A - phones", INTERVALS)), r"one interval tier .* there is 'phones', 'A - phones'"
    )
    refused(long(), "one interval tier .* there is none")
    refused(long(("phones", [(0, 1.5, "a"), (1, 2, "i")])), r"tier 'phones', interval 2: 'i' begins at 1\.0000 s")
    refused(long(("phones", INTERVALS)), r"tier 'phones', interval 3: .* the recording ends at 0\.7000 s", seconds=0.7)
    refused(
        long(("phones", INTERVALS[:2])), r"tier 'phones': truncated: it ends at 2\.0000 s, its last interval at 1\.25"
    )
    refused(short("phones", INTERVALS)[:-12], r"tier 'phones': truncated")
    refused("once upon a time", "not a TextGrid, or damaged")
    refused(b"\x93\xfa\x96{", "line 1: neither UTF-8 nor UTF-16")


@settings(deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([long(("p", INTERVALS)), short("p", INTERVALS)])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        size = data.draw(st.integers(0, 20))
        content[at : at + size] = data.draw(st.binary(max_size=5))
    try:
        found = read_textgrid(write(tmp_path_factory.mktemp("grid"), bytes(content)), 2.0).labels
    except LabelError as error:
        assert "a.TextGrid" in str(error) and "\n" not in str(error)
        return
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    assert all(0 <= label.start <= label.end <= 2 and label.name for label in found)
