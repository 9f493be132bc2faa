"""What the report plays: samples, and recordings of the test split with their copy synthesis."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from melnet.audio.files import read_mono, write_wav
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.spectrogram import log_mel
from melnet.data.dataset import Passage, passages
from melnet.data.shards import Shards
from stages.command import CLEAN, SAMPLES, StageError
from stages.corpus.files import MANIFEST
from stages.parameters import Generate, Mel
from stages.progress import progress
from stages.report_page.player_assets import colour_range, inversion_error, outline, save_spectrogram, time_ticks

OUTLINE_BINS = 300


@dataclass(frozen=True)
class Piece:
    """Audio and the spectrogram to show for it."""

    group: str  # generated or recorded
    title: str  # of the piece and of its other versions
    version: str
    slug: str  # names its files
    signal: np.ndarray  # (samples,)
    log_mel: np.ndarray  # (frames, bands)
    error: float | None  # nats, of a signal made from a spectrogram


@dataclass(frozen=True)
class Track:
    """A piece as the page shows it."""

    piece: Piece
    seconds: float
    outline: str
    ticks: list[float]


def pieces(settings: Generate, recordings: int, test: Shards) -> list[Piece]:
    """All samples, then recordings and copies; raise :class:`StageError` if samples or recordings are missing."""
    found = passages(test, recordings, settings.frames)
    return [*_samples(test.settings.mel, test.settings.sample_rate), *_recorded(found, settings, test)]


def write(folder: Path, pieces: list[Piece], sample_rate: int) -> tuple[list[Track], tuple[float, float]]:
    """Write audio/*.wav and pictures/*.png below ``folder``; give the tracks and the range of their colours."""
    limits = colour_range([piece.log_mel for piece in pieces])
    tracks = []
    for piece in progress(pieces, total=len(pieces), label="report", unit="tracks"):
        write_wav(folder / "audio" / f"{piece.slug}.wav", piece.signal, sample_rate, normalise=True)
        save_spectrogram(folder / "pictures" / f"{piece.slug}.png", piece.log_mel, limits)
        seconds = len(piece.signal) / sample_rate
        shape = outline(piece.signal / max(float(np.abs(piece.signal).max()), 1e-9), OUTLINE_BINS)
        tracks.append(Track(piece, seconds, shape, time_ticks(seconds)))
    return tracks, limits


def _samples(mel: Mel, sample_rate: int) -> Iterator[Piece]:
    path = SAMPLES / "spectrograms.parquet"
    if not path.is_file():
        raise StageError(f"{path} does not exist; the stage generate makes it")
    table = pq.read_table(path)
    frames = json.loads(table.schema.metadata[b"melnet"])["frames"]
    columns = (table[column].to_pylist() for column in ("sample", "singer"))
    for name, singer, values in zip(*columns, table["mel"], strict=True):
        title = f"{name}, {singer}" if singer else name
        sung = np.array(values.values).reshape(frames, mel.n_mels)
        signal = read_mono(SAMPLES / f"{name}.wav")
        yield Piece("generated", title, "sample", name, signal, sung, inversion_error(signal, sung, mel, sample_rate))
        joined = f"{name}-joined"
        if (SAMPLES / f"{joined}.wav").is_file():
            signal = read_mono(SAMPLES / f"{joined}.wav")
            both = _with_prime(signal, sung, mel, sample_rate)
            yield Piece("generated", title, "with its prime", joined, signal, both, None)


def _with_prime(signal: np.ndarray, sung: np.ndarray, mel: Mel, sample_rate: int) -> np.ndarray:
    """Log-mel of a sample after its prime, from the audio of both: the prime's is as loud as the sample's tells."""
    heard = log_mel(signal, mel, sample_rate)
    # The WAV was scaled to its peak.
    level = np.sqrt(np.exp(sung).sum() / np.exp(heard[-len(sung) :]).sum())
    heard = log_mel((level * signal).astype(np.float32), mel, sample_rate)
    return np.concatenate([heard[: -len(sung)], sung])


def _recorded(found: list[Passage], settings: Generate, test: Shards) -> Iterator[Piece]:
    """Each passage as recorded, and its copy synthesis: log-mel and back."""
    mel, sample_rate = test.settings.mel, test.settings.sample_rate
    table = pq.read_table(CLEAN / MANIFEST, columns=["path", "output"])
    files = dict(zip(table["path"].to_pylist(), table["output"].to_pylist(), strict=True))
    mels = np.stack([passage.log_mel for passage in found])
    copies = mel_to_audio(mels, mel, sample_rate, settings.griffin_lim_iterations, settings.seed)
    for i, (passage, copy) in enumerate(zip(found, copies, strict=True)):
        start = passage.start_frame * mel.hop_length
        title = f"{passage.recording} at {start / sample_rate:.1f} s"
        signal = read_mono(CLEAN / files[passage.recording], start, len(copy))
        yield Piece("recorded", title, "recording", f"recording-{i:02d}", signal, passage.log_mel, None)
        again = log_mel(copy, mel, sample_rate)
        error = inversion_error(copy, passage.log_mel, mel, sample_rate)
        yield Piece("recorded", title, "copy synthesis", f"copy-{i:02d}", copy, again, error)
