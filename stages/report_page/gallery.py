"""The tracks that the report plays: samples, and recordings of the test split with their copy synthesis."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from melnet.audio.files import read_mono, write_wav
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.pitch import pitch_of
from melnet.audio.spectrogram import log_mel
from melnet.data.dataset import Passage, passages
from melnet.data.samples import Samples
from melnet.data.shards import Shards
from melnet.data.tracks import Tracks
from stages.corpus.manifest import read_manifest
from stages.parameters import Generate
from stages.paths import CLEAN, SAMPLES, SPECTROGRAMS
from stages.progress import progress
from stages.report_page.player_assets import (
    colour_range,
    inversion_error,
    label_spans,
    note_path,
    outline,
    phoneme_runs,
    pitch_path,
    save_spectrogram,
    time_ticks,
)

GRIFFIN_LIM_SAMPLES = SAMPLES / "griffin-lim"  # only where the samples themselves are by the vocoder
ASKED, SCORE, TEXT = SAMPLES / "asked", SAMPLES / "score", SAMPLES / "text"
NEAREST = SAMPLES / "nearest.json"
OUTLINE_BINS = 300
VOCODER, GRIFFIN_LIM, RECORDING = "vocoder", "Griffin-Lim", "recording"  # versions

Invert = Callable[[list[Passage]], np.ndarray]
"""passages of one length -> audio (passages, samples) made of their spectrograms"""


@dataclass(frozen=True)
class Asked:
    """What a piece was asked to sing, to be drawn over its spectrogram."""

    melody: str  # SVG path in the coordinates of a track's pitch; empty if no melody was asked for
    phonemes: list[tuple[float, float, str]]  # left edge and width, as shares of the picture, and name


@dataclass(frozen=True)
class Piece:
    """Audio and the spectrogram to show for it."""

    group: str  # asked, score, text, generated, nearest or recorded
    title: str  # shared by all versions of the piece
    version: str  # by what it was made audible, or what else tells it from the others
    slug: str  # stem of its files' names
    signal: np.ndarray  # (samples,)
    log_mel: np.ndarray  # (frames, bands)
    error: float | None  # nats, of a signal made from a spectrogram
    asked: Asked | None = None


@dataclass(frozen=True)
class Track:
    """A piece as the page shows it."""

    piece: Piece
    seconds: float
    outline: str
    pitch: str
    ticks: list[float]


def pieces(
    settings: Generate, recordings: int, test: Shards, vocoder: Invert | None, tracks: Tracks | None
) -> list[Piece]:
    """Samples, the passage nearest to the train split, recordings and their copies.

    With tracks, which are of what the model is told, samples that were asked to sing something come first.

    Raises
    ------
    MelnetError
        The samples, recordings or tracks are missing.
    """
    found = passages(test, recordings, settings.frames)
    recorded = list(_recorded(found, settings, test.spec.mel, vocoder))
    asked: list[Piece] = []
    if tracks:
        originals = [piece for piece in recorded if piece.version == RECORDING]
        asked = [*_asked(found, originals, tracks), *(_score(Path(settings.score).name) if settings.score else [])]
    return [*asked, *_texts(), *_samples(), *_nearest(), *recorded]


def by_vocoder() -> bool:
    """Whether the vocoder made the samples' audio; else Griffin-Lim did."""
    return GRIFFIN_LIM_SAMPLES.is_dir()


def write(folder: Path, pieces: list[Piece], sample_rate: int) -> tuple[list[Track], tuple[float, float]]:
    """Write audio/*.wav and pictures/*.png below ``folder``; give the tracks and the range of their colours."""
    limits = colour_range([piece.log_mel for piece in pieces])
    tracks = []
    for piece in progress(pieces, total=len(pieces), label="report", unit="tracks"):
        write_wav(folder / "audio" / f"{piece.slug}.wav", piece.signal, sample_rate, normalise=True)
        save_spectrogram(folder / "pictures" / f"{piece.slug}.png", piece.log_mel, limits)
        seconds = len(piece.signal) / sample_rate
        shape = outline(piece.signal / max(float(np.abs(piece.signal).max()), 1e-9), OUTLINE_BINS)
        pitch = pitch_path(pitch_of(piece.signal, sample_rate))
        tracks.append(Track(piece, seconds, shape, pitch, time_ticks(seconds)))
    return tracks, limits


def _asked(found: list[Passage], originals: list[Piece], tracks: Tracks) -> Iterator[Piece]:
    """Each passage as recorded, whose files are those of the group ``recorded``, and the sample that sings the same."""
    samples = Samples.read(ASKED / SPECTROGRAMS.name)
    tracks.check(samples.mel)
    # There may be fewer samples than recordings.
    for passage, original, name, sampled in zip(found, originals, samples.names, samples.log_mels, strict=False):
        asked = _asked_of(passage, tracks, samples.mel)
        yield replace(original, group="asked", asked=asked)
        signal = read_mono(ASKED / f"{name}.wav")
        yield Piece("asked", original.title, "sung as asked", name, signal, sampled, None, asked)


def _asked_of(passage: Passage, tracks: Tracks, mel: MelSpec) -> Asked:
    frames, seconds_per_frame = len(passage.log_mel), mel.seconds_per_frame
    sung = tracks.window(passage.recording, passage.start_frame, frames)
    melody, labels = "", []
    if sung.melody is not None:
        log_pitch, voicing = sung.melody.T
        melody = pitch_path(np.where(voicing > 0, np.exp(log_pitch), 0), seconds_per_frame)
    if sung.phonemes is not None:
        labels = phoneme_runs(sung.phonemes, tracks.spec.vocabulary.names, seconds_per_frame)
    return Asked(melody, label_spans(labels, (frames - 1) * seconds_per_frame))


def _score(title: str) -> Iterator[Piece]:
    """The samples that sing ``generate.score``."""
    samples = Samples.read(SCORE / SPECTROGRAMS.name)
    score = json.loads((SCORE / "score.json").read_text(encoding="utf-8"))
    seconds = (samples.log_mels.shape[1] - 1) * samples.mel.seconds_per_frame
    # A recording that is followed has no notes.
    melody = note_path(score["notes"]) or pitch_path(np.array(score["pitch_hz"]), samples.mel.seconds_per_frame)
    asked = Asked(melody, label_spans(score["labels"], seconds))
    for name, singer, sampled in zip(samples.names, samples.singers, samples.log_mels, strict=True):
        version = f"{name}, {singer}" if singer else name
        yield Piece("score", title, version, name, read_mono(SCORE / f"{name}.wav"), sampled, None, asked)


def read_alignments() -> list[dict[str, Any]]:
    """When which symbol of texts is read (:mod:`melnet.reading`); none of a model that reads none."""
    path = TEXT / "alignments.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"alignments": []}
    found: list[dict[str, Any]] = content["alignments"]
    return found


def _texts() -> Iterator[Piece]:
    """The samples that sing texts, with the symbols where they are read."""
    if not TEXT.is_dir():
        return
    samples, found = Samples.read(TEXT / SPECTROGRAMS.name), {item["name"]: item for item in read_alignments()}
    seconds_per_frame = samples.mel.seconds_per_frame
    seconds = (samples.log_mels.shape[1] - 1) * seconds_per_frame
    for name, sampled in zip(samples.names, samples.log_mels, strict=True):
        read = np.argmax(found[name]["weights"], axis=1) + 1
        labels = phoneme_runs(read, found[name]["symbols"], seconds_per_frame)
        asked = Asked("", label_spans(labels, seconds))
        yield Piece(
            "text", " ".join(found[name]["symbols"]), name, name, read_mono(TEXT / f"{name}.wav"), sampled, None, asked
        )


def _samples() -> Iterator[Piece]:
    samples = Samples.read(SPECTROGRAMS)
    mel = samples.mel
    folders = {VOCODER: SAMPLES, GRIFFIN_LIM: GRIFFIN_LIM_SAMPLES} if by_vocoder() else {GRIFFIN_LIM: SAMPLES}
    for name, singer, sampled in zip(samples.names, samples.singers, samples.log_mels, strict=True):
        title = f"{name}, {singer}" if singer else name
        for version, folder in folders.items():
            signal = read_mono(folder / f"{name}.wav")
            lost = inversion_error(signal, sampled, mel)
            yield Piece("generated", title, version, f"{name}-{version.lower()}", signal, sampled, lost)
        joined = f"{name}-joined"
        if (SAMPLES / f"{joined}.wav").is_file():
            signal = read_mono(SAMPLES / f"{joined}.wav")
            yield Piece("generated", title, "with its prime", joined, signal, _with_prime(signal, sampled, mel), None)


def _nearest() -> Iterator[Piece]:
    """A passage of a sample and the passage of the train split that it is nearest to, if ``generate`` found them."""
    if not NEAREST.is_file():
        return
    pair = json.loads(NEAREST.read_text(encoding="utf-8"))
    mel = Samples.read(SPECTROGRAMS).mel
    samples = (pair["frames"] - 1) * mel.hop_length
    outputs = {row["path"]: row["output"] for row in read_manifest(CLEAN)}
    for name, frame, file in (
        (pair["sample"], pair["sample_frame"], SAMPLES / f"{pair['sample']}.wav"),
        (pair["recording"], pair["recording_frame"], CLEAN / outputs[pair["recording"]]),
    ):
        start = frame * mel.hop_length
        signal = read_mono(file, start, samples)
        version = f"{name} at {start / mel.sample_rate:.1f} s"
        slug = "nearest-sample" if name == pair["sample"] else "nearest-recording"
        yield Piece("nearest", "Nearest passages", version, slug, signal, log_mel(signal, mel), None)


def _with_prime(signal: np.ndarray, sampled: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Log-mel of a prime and its sample, from the audio of both, whose level is found from the sample."""
    level = np.sqrt(np.exp(sampled).sum() / np.exp(log_mel(signal, mel)[-len(sampled) :]).sum())
    both = log_mel((level * signal).astype(np.float32), mel)
    return np.concatenate([both[: -len(sampled)], sampled])


def _recorded(found: list[Passage], settings: Generate, mel: MelSpec, vocoder: Invert | None) -> Iterator[Piece]:
    """Each passage as recorded, and its copy synthesis: the audio made of its log-mel."""
    files = {row["path"]: row["output"] for row in read_manifest(CLEAN)}
    mels = np.stack([passage.log_mel for passage in found])
    copies = {VOCODER: vocoder(found)} if vocoder else {}
    copies[GRIFFIN_LIM] = mel_to_audio(mels, mel, settings.griffin_lim_iterations, settings.seed)
    for i, passage in enumerate(found):
        start = passage.start_frame * mel.hop_length
        title = f"{passage.recording} at {start / mel.sample_rate:.1f} s"
        signal = read_mono(CLEAN / files[passage.recording], start, (len(passage.log_mel) - 1) * mel.hop_length)
        yield Piece("recorded", title, RECORDING, f"recording-{i:02d}", signal, passage.log_mel, None)
        for version, signals in copies.items():
            copy, slug = signals[i], f"copy-{i:02d}-{version.lower()}"
            lost = inversion_error(copy, passage.log_mel, mel)
            yield Piece("recorded", title, f"copy synthesis, {version}", slug, copy, log_mel(copy, mel), lost)
