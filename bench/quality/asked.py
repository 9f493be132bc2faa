"""Asked to sing: the scores of the songs of the test split, and recordings that are followed.

    python -m bench.quality.asked --work FOLDER --name NAME [--follow RECORDING ...]

Uses the model of a finished run in FOLDER, which is told melody and phonemes. Each recording of the test split that has
a MIDI file beside it is asked for by that file and its labels; the recording itself is measured against the same notes.
A hummed tune, which is synthesised, and RECORDINGs are followed, transposed into the middle of the voice's range.
Writes bench/quality/asked-NAME.json, with what the conditions are worth in nats from FOLDER/metrics/evaluate.json.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow

import numpy as np
from PIL import Image

import melnet
from bench.common import ROOT
from bench.quality.vocoder_picture import picture
from melnet.audio.files import write_wav
from melnet.audio.spectrogram import log_mel
from melnet.comparison import phoneme_classifier
from melnet.data.dataset import stretches
from melnet.data.shards import Shards
from melnet.metrics.asked import melody_agreement
from melnet.prime import read_recording
from melnet.saved import read_tracks
from melnet.score import Score, read_score
from melnet.singing import Model
from stages.figures import save
from stages.parameters import load_params

SEED = 1
HARMONICS = 10
PICTURE_SECONDS, PEAK = 5.0, 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--follow", type=Path, action="append", default=[], metavar="RECORDING")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the audio")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="for spectrograms of a song, recorded and asked for"
    )
    arguments = parser.parse_args()
    model = melnet.load(arguments.work / "models", warm_up=False)
    metrics = json.loads((arguments.work / "metrics/evaluate.json").read_text(encoding="utf-8"))
    trained = json.loads((arguments.work / "metrics/train/tier-1.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        "epochs": trained["epochs"],
        "nll": metrics["nll"],
        "nll_without": metrics["nll_without"],
        "songs": _songs(model, arguments.work, arguments.out, arguments.picture),
    }
    with tempfile.TemporaryDirectory() as folder:
        hummed = Path(folder, "hummed.wav")
        write_wav(hummed, _hummed(model), model.sample_rate, normalise=True)
        found["followed"] = {path.stem: _followed(model, path, arguments.out) for path in (hummed, *arguments.follow)}
    path = ROOT / f"bench/quality/asked-{arguments.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def _songs(model: Model, work: Path, out: Path | None, picture_file: Path | None) -> dict[str, Any]:
    """Agreement of samples, and of the recordings, with the notes and labels of the songs of the test split."""
    corpus, shards = Path(load_params(work / "params.yaml").corpus.path), work / "data/shards"
    names = sorted({stretch.recording for stretch in stretches(Shards(shards / "test"))})
    songs = [corpus / name for name in names if (corpus / name).with_suffix(".mid").is_file()]
    scores = [model.read_score(song.with_suffix(".mid")) for song in songs]
    tracks = read_tracks(model.config, work / "data/tracks")
    assert tracks
    classifier = phoneme_classifier(model.config, Shards(shards / "train"), tracks, SEED)
    mel, normalise = model.config.mel, model.config.normalisation.normalise
    sampled = model.sample(count=len(scores), score=scores, seed=SEED)
    invert, singer_ids = model.inverter(seed=SEED), model.singer_ids(None, 1)
    sung = [
        invert(item[None, : score.frames], singer_ids, _melody(score)[None])[0]
        for item, score in zip(sampled, scores, strict=True)
    ]
    recorded = [read_recording(song, model.sample_rate) for song in songs]
    figures: dict[str, Any] = {"songs": len(songs), "seconds": sum(map(len, sung)) / model.sample_rate}
    for kind, signals, log_mels in (
        ("asked", sung, list(sampled)),
        ("recorded", recorded, [log_mel(signal, mel) for signal in recorded]),
    ):
        lengths = [min(score.frames, len(item)) for score, item in zip(scores, log_mels, strict=True)]
        phonemes = [score.tracks.phonemes[:n] for score, n in zip(scores, lengths, strict=True)]  # type: ignore[index]
        spectra = [normalise(item[:n]) for item, n in zip(log_mels, lengths, strict=True)]
        figures[kind] = asdict(melody_agreement([_melody(score) for score in scores], signals, mel))
        figures[kind]["phoneme_accuracy"] = classifier and classifier.accuracy(spectra, phonemes)
    if picture_file:
        first = int(np.argmax(_melody(scores[0])[:, 1] > 0)) * mel.hop_length  # where the song begins
        part = slice(max(0, first - model.sample_rate // 4), first + round(PICTURE_SECONDS * model.sample_rate))
        both = {"recording": recorded[0][part], "asked to sing the same": sung[0][part]}
        scaled = {title: PEAK * signal / np.abs(signal).max() for title, signal in both.items()}
        save(picture(scaled, model.sample_rate), picture_file)
        Image.open(picture_file).quantize(64).save(picture_file, optimize=True)
    if out:
        for song, signal in zip(songs, sung, strict=True):
            write_wav(out / f"{song.stem}-asked.wav", signal, model.sample_rate, normalise=True)
    return figures


def _followed(model: Model, path: Path, out: Path | None) -> dict[str, Any]:
    """How far the model follows a recording, which is transposed to where the voice is at home."""
    told = model.config.frame_conditioning
    assert told and told.range_hz
    middle = np.sqrt(told.range_hz[0] * told.range_hz[1])
    own = np.exp(np.median(_voiced(read_score(path, model.config.mel))))
    transpose = float(np.round(12 * np.log2(middle / own)))
    score = model.read_score(path, transpose=transpose)
    audio = model.sing(score=score, seed=SEED)
    if out:
        write_wav(out / f"{path.stem}-followed.wav", audio[0], model.sample_rate, normalise=True)
    return {"transpose": transpose, **asdict(melody_agreement([_melody(score)], list(audio), model.config.mel))}


def _melody(score: Score) -> np.ndarray:
    assert score.tracks.melody is not None
    return score.tracks.melody


def _voiced(score: Score) -> np.ndarray:
    """Natural logarithms of the pitches of the voiced frames of a score."""
    melody = _melody(score)
    return melody[melody[:, 1] > 0, 0]


def _hummed(model: Model) -> np.ndarray:
    """A tune as somebody hums it: harmonics that fall off by 12 dB an octave."""
    tune = _melody(read_score(Path(melnet.__file__).parent / "melodies/ode_to_joy.txt", model.config.mel))
    at = np.arange((len(tune) - 1) * model.config.mel.hop_length) / model.config.mel.hop_length
    frames = np.arange(len(tune))
    log_pitch, voicing = (np.interp(at, frames, tune[:, column]) for column in range(2))
    phase = 2 * np.pi * np.cumsum(np.exp(log_pitch)) / model.sample_rate
    harmonics = np.arange(1, HARMONICS + 1)
    return (voicing * (np.sin(phase[:, None] * harmonics) / harmonics**2).sum(axis=1)).astype(np.float32)


def table() -> str:
    """Markdown of bench/quality/asked-pjs.json: samples beside recordings."""
    found = json.loads((ROOT / "bench/quality/asked-pjs.json").read_text(encoding="utf-8"))
    asked, recorded = found["songs"]["asked"], found["songs"]["recorded"]
    rows = {
        "frames within 50 cents of the notes": "pitch_accuracy",
        "frames voiced, or not, as asked": "voicing_agreement",
        "frames whose phoneme a classifier recognises": "phoneme_accuracy",
    }
    lines = [f"| {label} | {asked[name]:.2f} | {recorded[name]:.2f} |" for label, name in rows.items()]
    lines += [
        f"| correlation with the pitch of what is followed: {name} | {of['contour_correlation']:.2f} | |"
        for name, of in found["followed"].items()
    ]
    return "\n".join(["| | asked to sing | recordings |", "| --- | ---: | ---: |", *lines])


if __name__ == "__main__":
    main()
