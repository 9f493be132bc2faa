"""Texts of utterances: how labels become them, their file, and windows that begin with one."""

import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.data.labels.label import Label, LabelError
from melnet.data.labels.plain import read_plain
from melnet.data.texts import FILE, Alphabet, Texts, TextsError, TextSpec, Utterance, utterances_at, write_texts

ALPHABET = Alphabet("phonemes", ("a", "i", "pau", "t"), symbols_per_second=4.0)
SPEC = TextSpec(24000, 512, ALPHABET)
SONG = [Utterance(0, np.array([3, 4, 1])), Utterance(40, np.array([3, 2])), Utterance(90, np.array([3, 1, 4, 2]))]


@pytest.fixture
def written(tmp_path):
    assert write_texts(tmp_path, SPEC, [("song.wav", SONG), ("none.wav", []), ("other.wav", SONG[:1])]) == 4
    return tmp_path


def spelt(windows):
    return [(window.frame, "".join(ALPHABET.spell(window.text))) for window in windows]


def test_they_come_back(written):
    texts = Texts(written)
    assert texts.spec == SPEC
    assert spelt(texts.of("song.wav")) == [(0, "pauta"), (40, "paui"), (90, "pauati")]
    assert spelt(texts.of("other.wav")) == [(0, "pauta")]
    assert texts.of("none.wav") == texts.of("unknown.wav") == []


@pytest.mark.parametrize(
    ("first", "length", "frames", "expected"),
    [
        (0, 200, 30, [(0, "pauta"), (40, "paui"), (90, "pauati")]),
        (0, 200, 60, [(0, "pautapaui"), (40, "pauipauati"), (90, "pauati")]),
        (0, 200, 111, [(0, "pautapauipauati"), (40, "pauipauati")]),
        (40, 60, 10, [(40, "paui"), (90, "pauati")]),
        (40, 50, 10, [(40, "paui")]),
        (41, 40, 10, []),
    ],
)
def test_windows_begin_with_an_utterance_and_hold_all_that_begin_in_them(written, first, length, frames, expected):
    assert spelt(Texts(written).windows("song.wav", first, length, frames)) == expected


def test_an_utterance_begins_with_the_silence_before_it():
    names = [("pau", 0.0), ("br", 0.5), ("t", 1.0), ("a", 1.1), ("pau", 2.0), ("i", 2.5), ("a", 4.0), ("pau", 5.0)]
    ends = [start for _, start in names[1:]] + [6.0]
    labels = [Label(start, end, name) for (name, start), end in zip(names, ends, strict=True)]
    labels[5] = labels[5]._replace(end=3.0)  # a second without a label follows
    alphabet = Alphabet("phonemes", ("a", "br", "i", "pau", "t"), 2.0)
    found = utterances_at(labels, np.arange(60) * 0.1, alphabet)
    assert [(item.frame, " ".join(alphabet.spell(item.text))) for item in found] == [
        (0, "pau br t a"),
        (20, "pau i"),
        (40, "a"),
    ]


def test_texts_are_read_as_the_corpus_spells_them():
    assert ALPHABET.text(ALPHABET.indices(" t  a ")) == "pau t a pau"
    assert ALPHABET.text(ALPHABET.indices("pau i pau")) == "pau i pau"
    characters = Alphabet("characters", ("a", "h"), 9.0)
    assert characters.text(characters.indices("AH ha")) == "ahha"
    np.testing.assert_array_equal(characters.batch(["ah", "hah"], 3), [[1, 2, 0], [2, 1, 2], [1, 2, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a u", "'u' is none of the model's phonemes: a i pau t"),
        (" ", "' ' has no phonemes"),
        ("ta", "'ta' is none"),
    ],
)
def test_unknown_symbols_are_named(text, message):
    with pytest.raises(TextsError, match=message):
        ALPHABET.indices(text)


def test_unusable_files_are_named(tmp_path, written):
    with pytest.raises(TextsError, match=r"texts\.parquet: no such file; the stage tracks makes it"):
        Texts(tmp_path / "nowhere")
    with pytest.raises(TextsError, match=r"texts\.parquet: frames every 512 samples at 24000 Hz, but"):
        Texts(written).check(MelSpec(hop_length=256))
    content = (written / FILE).read_bytes()
    for damaged in (b"no Parquet", content[:-30], content.replace(b'"version":1', b'"version":2')):
        (written / FILE).write_bytes(damaged)
        with pytest.raises(TextsError, match=r"texts\.parquet: (damaged|not a file of texts)"):
            Texts(written)


def test_a_plain_text_is_spread_over_its_recording(tmp_path):
    (tmp_path / "a.txt").write_text("Ah,\n  ça\n", encoding="utf-8")
    labels, unit, _ = read_plain(tmp_path / "a.txt", seconds=6.0)
    assert "".join(label.name for label in labels) == "ah, ça" and unit == "characters"
    assert [label.start for label in labels] == [0, 1, 2, 3, 4, 5] and labels[-1].end == 6
    (tmp_path / "a.txt").write_bytes(b"\n \n")
    with pytest.raises(LabelError, match=r"a\.txt: holds no text"):
        read_plain(tmp_path / "a.txt", 1.0)
    (tmp_path / "a.txt").write_bytes(b"\xff\x00\xff")
    with pytest.raises(LabelError, match=r"a\.txt"):
        read_plain(tmp_path / "a.txt", 1.0)
