"""Recordings to mono at one rate, streamed; reading and writing of the results.

Samples are floats where full scale is ±1. Memory does not grow with the length of a recording.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from melnet.audio.integrity import NotAudio, UnusableAudio, whole_frames
from melnet.data.atomic import atomic_write

BLOCK = 2**17  # samples of all channels decoded at a time
RESAMPLED_BLOCK = 2**20  # samples that a decoded block may become
SMALLEST = 2.0**-24  # a smaller peak is silence in 24 bits
UNRECOGNISED = 1  # libsndfile's code for "format not recognised"
# Samples of at most 24 bits: 32-bit floats hold them, and resample them in half the time. Those of the other formats
# may be too large for 32-bit floats, or too fine.
SHORT = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "ULAW", "ALAW"}


@dataclass(frozen=True)
class Source:
    """A recording that was found whole."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples per channel
    dtype: str  # that its samples are computed in, float32 or float64

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Levels:
    """Length and level of a converted recording."""

    samples: int
    peak: float  # largest magnitude before the gain, full scale is 1
    rms: float  # root mean square before the gain
    gain: float  # factor applied to every sample; 1 unless the peak is above full scale


def inspect(path: Path) -> Source:
    """Check that a file is whole and give its dimensions.

    Raises
    ------
    NotAudio
        It is in no format that libsndfile knows.
    UnusableAudio
        It cannot be read, is empty, truncated or damaged, or nothing says how long it should be.
    """
    with _opened(path) as (file, sound):
        frames = whole_frames(file, sound)
        if frames == 0:
            raise UnusableAudio("empty: it holds no samples")
        dtype = "float32" if sound.subtype in SHORT else "float64"
        return Source(path, sound.samplerate, sound.channels, frames, dtype)


def stored_rate(path: Path) -> int:
    """Sample rate in Hz that a file claims, of which nothing else is looked at.

    Raises
    ------
    UnusableAudio
        It cannot be opened as audio.
    """
    with _opened(path) as (_, sound):
        return int(sound.samplerate)


def mono_blocks(source: Source, frames: int) -> Iterator[np.ndarray]:
    """Decode a recording in blocks of at most ``frames``, as the mean of its channels; shape (samples,).

    Raises
    ------
    UnusableAudio
        It decodes to another length than it claims, or holds NaN or infinite samples.
    """
    decoded = 0
    with _opened(source.path) as (_, sound):
        # libsndfile takes longer to make floats of 16 bits than to read them.
        stored, scale = ("int16", 2.0**-15) if sound.subtype == "PCM_16" else (source.dtype, 1.0)
        block = np.empty((frames, source.channels), stored)
        while len(part := sound.read(out=block)):
            with np.errstate(invalid="ignore", over="ignore"):  # reported here in words
                mono = _mono(part, source.dtype, scale)
            if not np.isfinite(mono).all():
                raise UnusableAudio("NaN or infinite samples")
            decoded += len(part)
            yield mono
    if decoded != source.frames:
        raise UnusableAudio(f"truncated or damaged: its header claims {source.frames} frames, {decoded} can be decoded")


def _mono(signals: np.ndarray, dtype: str, scale: float = 1.0) -> np.ndarray:
    """Mean of the channels times ``scale``; (samples, channels) -> (samples,)."""
    # Channel by channel: over a short last axis numpy's sum is 5 times slower, its mean 20 times.
    total = signals[:, 0].astype(dtype)
    for channel in range(1, signals.shape[1]):
        total += signals[:, channel]
    total *= scale / signals.shape[1]
    return total


def resampled(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int, dtype: str = "float64"
) -> Iterator[np.ndarray]:
    """Resample a signal that comes in blocks of a floating-point ``dtype``, shape (samples,) each, to the same.

    Together the blocks are what ``soxr.resample(..., quality="VHQ")`` makes of the whole signal, whatever the
    block lengths: of ``n`` samples it makes ``n * sample_rate / source_rate``, rounded, halves up. At equal rates the
    signal passes unchanged.
    """
    if source_rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype=dtype, quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype), last=True)


def convert(source: Source, target: Path, sample_rate: int) -> Levels:
    """Write a recording as mono 24-bit FLAC at ``sample_rate`` Hz; same recording, same bytes.

    Where the resampled signal exceeds full scale it is written with the gain that brings its peak to full scale, so
    that nothing clips.

    Raises
    ------
    UnusableAudio
        See :func:`mono_blocks`; also if all samples are zero, once mixed to mono, or none is left after resampling.
        Nothing is left at ``target``.
    OSError
        ``target`` cannot be written.
    """
    try:
        levels = _write_flac(source, target, sample_rate, gain=1.0)
        if not levels.samples:
            raise UnusableAudio(f"too short for a single sample at {sample_rate} Hz")
        if not math.isfinite(levels.rms):
            raise UnusableAudio(f"samples too large to compute with: peak {levels.peak:.3g}")
        if levels.peak < SMALLEST:
            raise UnusableAudio("all samples are zero (or below 24 bits) once mixed to mono")
        if levels.peak > 1:
            levels = _write_flac(source, target, sample_rate, gain=1 / levels.peak)
    except UnusableAudio:
        target.unlink(missing_ok=True)
        raise
    return levels


def _write_flac(source: Source, target: Path, sample_rate: int, gain: float) -> Levels:
    frames = max(1, min(BLOCK // source.channels, RESAMPLED_BLOCK * source.sample_rate // sample_rate))
    samples, peak, power = 0, 0.0, 0.0
    try:
        with soundfile.SoundFile(os.fspath(target), "w", sample_rate, 1, "PCM_24", format="FLAC") as sound:
            for block in resampled(mono_blocks(source, frames), source.sample_rate, sample_rate, source.dtype):
                sound.write(block * gain)
                samples += len(block)
                peak = max(peak, float(np.abs(block).max(initial=0)))
                with np.errstate(over="ignore"):  # an infinite sum is for the caller to judge
                    power += float(np.square(block, dtype=np.float64).sum())
    except soundfile.LibsndfileError as error:  # of writing: those of reading are UnusableAudio
        raise OSError(f"{target}: cannot be written: {error.error_string}") from error
    return Levels(samples, peak, math.sqrt(power / max(samples, 1)), gain)


def read_mono(path: Path, start: int = 0, frames: int = -1) -> np.ndarray:
    """Read ``frames`` samples (-1: all) from sample ``start`` on, mixed to mono; float32, shape (samples,).

    Fewer come back at the end of the file.

    Raises
    ------
    UnusableAudio
        The file cannot be decoded.
    """
    with _opened(path) as (_, sound):
        sound.seek(min(start, sound.frames))
        return _mono(sound.read(frames, dtype="float32", always_2d=True), "float32")


def joined(before: np.ndarray, after: np.ndarray, *, overlap: int, fade: int) -> np.ndarray:
    """One signal that goes on from another without a click, float32 (samples,).

    ``after`` begins ``overlap`` samples before the end of ``before``, and in them is much like it but for its phase:
    it was made from the same spectrogram. It is moved by at most half a fade to where it is most alike, and the two are
    crossfaded over the last ``fade`` samples of ``before``.

    Raises
    ------
    ValueError
        If the overlap is shorter than two fades or longer than ``before``, or ``after`` ends less than a fade later.
    """
    if not (2 * fade <= overlap <= min(len(before), len(after) - fade)):
        raise ValueError(
            f"overlap of {overlap} samples of signals of {len(before)} and {len(after)}, with a fade of {fade}"
        )
    end = before[-fade:]
    # The piece of `after` that begins at lag 0 lies where the fade does in time; the search goes half a fade each way.
    first = overlap - fade - fade // 2
    piece = after[first : first + 2 * fade]
    alike = np.correlate(piece, end, mode="valid")
    energy = np.convolve(np.square(piece), np.ones(fade, piece.dtype), mode="valid")
    start = first + int(np.argmax(alike / np.sqrt(np.maximum(energy, np.finfo(np.float32).tiny))))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    # As alike as they are after the search, amplitudes add: a linear fade keeps the level.
    crossed = (1 - ramp) * end + ramp * after[start : start + fade]
    return np.concatenate([before[:-fade], crossed, after[start + fade :]]).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, sample_rate: int, *, normalise: bool = False) -> None:
    """Write a mono 16-bit WAV file; it appears complete or not at all.

    Parameters
    ----------
    samples
        Floats, shape (samples,); what is beyond ±1 clips.
    normalise
        Scale to a peak of 0.95; silence stays silence.

    Raises
    ------
    ValueError
        ``samples`` has another shape, or holds NaN or infinity.
    OSError
        ``path`` cannot be written.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError(f"{path}: samples of shape {samples.shape} are not one channel of finite numbers")
    peak = np.abs(samples).max(initial=0)
    if normalise and peak > 0:
        samples = samples / peak * 0.95
    with atomic_write(path) as temporary:
        try:
            soundfile.write(os.fspath(temporary), samples, sample_rate, "PCM_16", format="WAV")
        except soundfile.LibsndfileError as error:
            raise OSError(f"{path}: cannot be written: {error.error_string}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, soundfile.SoundFile]]:
    """A file as bytes and as sound; what prevents reading it becomes :class:`UnusableAudio`."""
    try:
        with path.open("rb") as file, path.open("rb", buffering=0) as raw:
            if os.fstat(file.fileno()).st_size == 0:
                raise NotAudio("empty: it holds no bytes")
            # By descriptor: a name may not be encodable, and libsndfile would guess formats by its suffix.
            with soundfile.SoundFile(raw.fileno(), closefd=False) as sound:
                yield file, sound
    except soundfile.LibsndfileError as error:
        text = error.error_string.strip().rstrip(".")
        if error.code == UNRECOGNISED:
            raise NotAudio("not audio in any format that can be read") from error
        raise UnusableAudio(f"truncated or damaged: {text}") from error
    except OSError as error:
        raise UnusableAudio(f"cannot be read: {error.strerror}") from error
