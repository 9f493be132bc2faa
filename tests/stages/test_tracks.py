"""The stage `tracks`: melody and phonemes of the recordings, as model.condition_on asks for."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import stages.downsample
from melnet.data.pitch_tracks import PitchTracksError, read_pitch_tracks, write_pitch_tracks
from melnet.data.texts import Texts
from melnet.data.tracks import Tracks, TracksError
from stages.command import StageError
from stages.downsample import downsample
from stages.parameters import load_params
from stages.paths import CLEAN, PARAMS, PITCH, TRACKS
from stages.tracks import tracks
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
RATE = 48000
NOTES = (220.0, 330.0, 275.0)  # Hz, one a second, with two seconds of silence before each


def params_of(condition_on, **sections):
    edit_params(Path(), {"corpus": {"path": "corpus"}, "model": {"condition_on": condition_on}, **sections})
    return load_params(PARAMS)


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    """A corpus after downsample and pitch: three notes with long pauses, with labels and without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.downsample, "parallel", lambda function, items, **_: (function(item) for item in items))
    folder = Path("corpus/Anna")
    folder.mkdir(parents=True)
    time = np.arange(RATE) / RATE
    for gain, name in enumerate(("one.wav", "two.flac", "three é.wav"), 1):
        parts = [
            np.concatenate([np.zeros(2 * RATE), np.sin(2 * np.pi * hz * time) * (0.1 + gain * time / 10)])
            for hz in NOTES
        ]
        soundfile.write(folder / name, 0.5 * np.concatenate(parts), RATE)
    labels = [f"{i * 3}.0 {i * 3 + 2}.0 pau\n{i * 3 + 2}.0 {i * 3 + 3}.0 {name}\n" for i, name in enumerate("aio")]
    (folder / "one.lab").write_text("".join(labels))
    (folder / "three é.LAB").write_text("20000000 30000000 o\n")
    (folder / "notes.lab").write_text("no recording has this stem\n")
    params = params_of(None)
    downsample(params)
    rows = stages.corpus.manifest.read_manifest(CLEAN)
    pitch = [(row["path"], np.full(round(row["seconds_out"] / 0.016), 220.0)) for row in rows if row["status"] == "ok"]
    write_pitch_tracks(PITCH, pitch)
    return folder


def phonemes_of(name):
    found = Tracks(TRACKS)
    melody, phonemes = found.window(name, 0, 10_000)
    assert len(melody) == 10_000
    names = [None, *found.spec.vocabulary.names]
    return [names[i] for i in phonemes]


def test_labels_follow_the_shortened_recording(capsys):
    """Each note is where the energy is, though four and a half of nine seconds were cut."""
    tracks(params_of(["melody", "phonemes"]))
    shortened, rate = soundfile.read(CLEAN / "Anna/one.flac")
    assert len(shortened) < 5 * rate
    found = phonemes_of("Anna/one.wav")
    hop = 512
    for frame in range(len(shortened) // hop):
        middle = shortened[max(0, frame * hop - 20) : frame * hop + 20]
        around = shortened[max(0, frame * hop - 500) : frame * hop + 500]
        sounds = np.abs(middle).max() > 0.01
        if sounds == (np.abs(around).min() > 0) or (np.abs(around) > 0).all() or not around.any():
            assert (found[frame] in ("a", "i", "o")) == sounds, frame
    order = [name for before, name in zip([None, *found], found, strict=False) if name != before and name]
    assert order == ["pau", "a", "pau", "i", "pau", "o"]
    counts = {name: found.count(name) for name in "aio"}
    assert all(count == pytest.approx(rate / hop, abs=1) for count in counts.values())
    out = capsys.readouterr().out
    assert "1 label files with times in units of 100 ns\n1 label files with times in units of s\n" in out
    assert "3 recordings: melody from 219.7 to 219.7 Hz, 4 phonemes in 2 of them" in out


def test_recordings_without_labels_have_none():
    tracks(params_of(["melody", "phonemes"]))
    assert set(phonemes_of("Anna/two.flac")) == {None}
    assert set(phonemes_of("Anna/three é.wav")) == {None, "o"}


def test_melody_is_that_of_the_stage_pitch():
    tracks(params_of("melody"))
    found = Tracks(TRACKS, ["melody"])
    assert found.spec.conditions == ("melody",)
    samples = soundfile.info(CLEAN / "Anna/one.flac").frames
    frames = 1 + samples // 512
    melody = found.window("Anna/one.wav", 0, frames).melody
    assert len(read_pitch_tracks(PITCH)["Anna/one.wav"]) * 0.016 == pytest.approx(samples / 24000, abs=0.02)
    np.testing.assert_allclose(melody[:-2], [[np.log(220), 1]] * (frames - 2), rtol=1e-6)


def test_equal_input_gives_equal_bytes():
    params = params_of(["phonemes", "melody"])
    contents = []
    for _ in range(2):
        tracks(params)
        contents.append((TRACKS / "tracks.parquet").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("condition_on", [None, "singer"])
def test_without_conditions_nothing_is_read(corpus, condition_on, capsys):
    (corpus / "one.lab").write_text("broken")
    (PITCH / "pitch.parquet").unlink()
    (CLEAN / "manifest.parquet").unlink()
    tracks(params_of(condition_on))
    assert "no tracks" in capsys.readouterr().out
    assert Tracks(TRACKS, []).spec.conditions == ()
    with pytest.raises(TracksError, match="has no melody"):
        Tracks(TRACKS, ["melody"])


def test_rejected_labels_are_listed_and_the_others_used(corpus, capsys):
    (corpus / "one.lab").write_text("0.0 1.0 a\n0.5 2.0 i\n")
    tracks(params_of(["melody", "phonemes"]))
    errors = capsys.readouterr().err
    assert errors.startswith("labels rejected:\n  ") and "Anna/one.lab, line 2: 'i' begins at 0.5000 s" in errors
    assert set(phonemes_of("Anna/one.wav")) == {None}
    assert "o" in phonemes_of("Anna/three é.wav")
    with pytest.raises(
        StageError, match=r"1 of 2 label files in corpus are rejected, .*max_rejected: 0\.1; .*one\.lab, line 2"
    ):
        tracks(params_of("phonemes", downsample={"max_rejected": 0.1}))


def test_labels_of_another_unit_are_rejected(corpus, capsys):
    (corpus / "two.srt").write_text("1\n00:00:02,000 --> 00:00:03,000\nla\n")
    tracks(params_of("phonemes"))
    assert "two.srt: its labels are characters, but those of Anna/one.wav are phonemes" in capsys.readouterr().err
    (corpus / "one.lab").unlink()
    (corpus / "three é.LAB").unlink()
    tracks(params_of("phonemes"))
    assert Tracks(TRACKS, ["phonemes"]).spec.vocabulary.names == ("a", "l")


def test_of_several_label_files_the_first_kind_counts(corpus):
    (corpus / "one.srt").write_text("broken")
    tracks(params_of(["melody", "phonemes"]))
    assert "i" in phonemes_of("Anna/one.wav")


def test_no_labels_and_no_pitch_are_named(corpus):
    for path in corpus.glob("*.[lL][aA][bB]"):
        path.unlink()
    with pytest.raises(
        StageError, match=r"^model\.condition_on: phonemes, but no recording in corpus has a label file"
    ):
        tracks(params_of("phonemes"))
    write_pitch_tracks(PITCH, [])
    with pytest.raises(StageError, match=r"data/pitch: has no pitch of Anna/one\.wav; run the stage pitch again"):
        tracks(params_of("melody"))
    (PITCH / "pitch.parquet").unlink()
    with pytest.raises(PitchTracksError, match=r"pitch\.parquet: no such file"):
        tracks(params_of("melody"))


def texts_of(name):
    found = Texts(TRACKS)
    return [(utterance.frame, found.spec.alphabet.text(utterance.text)) for utterance in found.of(name)]


def test_texts_come_from_labels_without_their_times(capsys):
    tracks(params_of("text"))
    assert Tracks(TRACKS, []).spec.conditions == ()
    assert Texts(TRACKS).spec.alphabet.names == ("a", "i", "o", "pau")
    found = texts_of("Anna/one.wav")
    assert [text for _, text in found] == ["pau a", "pau i", "pau o"]
    shortened, rate = soundfile.read(CLEAN / "Anna/one.flac")
    for frame, _ in found:  # each begins with what is left of the silence before its note: half a second of two
        start = frame * 512
        assert np.abs(shortened[start + 512 : start + rate // 10]).max() < 0.01
        assert np.abs(shortened[start + rate // 2 : start + rate]).max() > 0.03
    assert [text for _, text in texts_of("Anna/three é.wav")] == ["o"] and texts_of("Anna/two.flac") == []
    assert "3 recordings: 4 utterances in 2 of them" in capsys.readouterr().out


def test_texts_come_from_files_without_times(corpus):
    for path in corpus.glob("*.[lL][aA][bB]"):
        path.unlink()
    (corpus / "one.txt").write_text("A i\nO\n")
    (corpus / "two.TXT").write_text("ai")
    tracks(params_of(["text", "melody"]))
    assert texts_of("Anna/one.wav") == [(0, "a i o")] and texts_of("Anna/two.flac") == [(0, "ai")]
    assert Tracks(TRACKS, ["melody"]).spec.conditions == ("melody",)
    (corpus / "two.TXT").write_bytes(b"")
    with pytest.raises(StageError, match=r"two\.TXT: holds no text"):
        tracks(params_of("text", downsample={"max_rejected": 0.1}))


def test_texts_are_read_by_no_other_condition(corpus):
    (corpus / "two.txt").write_text("broken as phonemes")
    tracks(params_of("phonemes"))
    assert set(phonemes_of_only("Anna/two.flac")) == {0}


def phonemes_of_only(name):
    return Tracks(TRACKS, ["phonemes"]).window(name, 0, 100).phonemes.tolist()
