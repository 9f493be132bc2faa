"""Convert recordings to mono at one sample rate, block by block: memory does not grow with their length.

Samples are floats; full scale is ±1.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr

from melnet.audio.files import mean_of_channels, opened
from melnet.audio.integrity import UnusableAudio, whole_frames
from melnet.audio.pauses import Cut, LevelMeter, find_cuts, without_cuts
from melnet.audio.sketch import Sketch

BLOCK = 2**17  # samples of all channels decoded at a time
RESAMPLED_BLOCK = 2**20  # samples that a decoded block may become
SPOOLED = 2**25  # bytes of a resampled recording that are kept in memory: 6 minutes; more are kept on the disk
SMALLEST = 2.0**-24  # in 24 bits a smaller peak is silence
# Formats whose samples have at most 24 bits: 32-bit floats hold them exactly, and are resampled in half the time.
# Samples of the other formats may be too large for 32-bit floats, or too fine.
SHORT = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "ULAW", "ALAW"}


@dataclass(frozen=True)
class Source:
    """A recording that was checked and found whole."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples per channel
    dtype: str  # float32 or float64: what its samples are decoded and resampled as

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Levels:
    """Length and level of a converted recording, before its pauses are cut."""

    samples: int
    peak: float  # largest magnitude before the gain
    rms: float  # root mean square before the gain
    gain: float  # factor applied to every sample; 1 unless the peak exceeds full scale


@dataclass(frozen=True)
class Converted:
    """The result of a conversion, but for the file."""

    levels: Levels
    cuts: list[Cut]  # what was left out of its pauses; in samples of the converted recording, in order
    sketch: np.ndarray  # float32 (melnet.audio.sketch.SIZE,), before the cuts

    @property
    def samples(self) -> int:
        """Samples in the file."""
        return self.levels.samples - sum(cut.stop - cut.start for cut in self.cuts)


def inspect(path: Path) -> Source:
    """Check that a recording is whole, and return its dimensions.

    Raises
    ------
    NotAudio
        It is in no format that libsndfile knows.
    UnusableAudio
        It cannot be read, is empty, truncated or damaged, or nothing says how long it should be.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     soundfile.write(file, np.zeros((4000, 2)), 8000, format="WAV")
    ...     inspect(Path(file.name)).seconds
    0.5
    """
    with opened(path) as (file, sound):
        frames = whole_frames(file, sound)
        if frames == 0:
            raise UnusableAudio("empty: it holds no samples")
        dtype = "float32" if sound.subtype in SHORT else "float64"
        return Source(path, sound.samplerate, sound.channels, frames, dtype)


def mono_blocks(source: Source, frames: int) -> Iterator[np.ndarray]:
    """Decode a recording in blocks of at most ``frames``, as the mean of its channels; each has shape (samples,).

    Raises
    ------
    UnusableAudio
        It decodes to another length than its header claims, or holds NaN or infinite samples.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     soundfile.write(file, np.zeros((5000, 2)), 8000, format="WAV")
    ...     [block.shape for block in mono_blocks(inspect(Path(file.name)), 4000)]
    [(4000,), (1000,)]
    """
    decoded = 0
    with opened(source.path) as (_, sound):
        # Converting 16 bits to floats here is faster than letting libsndfile do it.
        stored, scale = ("int16", 2.0**-15) if sound.subtype == "PCM_16" else (source.dtype, 1.0)
        block = np.empty((frames, source.channels), stored)
        while len(part := sound.read(out=block)):
            with np.errstate(invalid="ignore", over="ignore"):  # reported two lines below
                mono = mean_of_channels(part, source.dtype, scale)
            if not np.isfinite(mono).all():
                raise UnusableAudio("NaN or infinite samples")
            decoded += len(part)
            yield mono
    if decoded != source.frames:
        raise UnusableAudio(f"truncated or damaged: its header claims {source.frames} frames, {decoded} can be decoded")


def resampled(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int, dtype: str = "float64"
) -> Iterator[np.ndarray]:
    """Resample a signal that comes in blocks, shape (samples,), of the floating-point ``dtype``.

    The blocks that come out are together what ``soxr.resample(..., quality="VHQ")`` makes of the whole signal,
    whatever the block lengths: ``n`` samples become ``n * sample_rate / source_rate``, rounded, halves up. At equal
    rates the blocks pass unchanged.

    >>> blocks = [np.zeros(3000), np.zeros(1411)]
    >>> sum(len(block) for block in resampled(blocks, 44100, 24000))
    2401
    """
    if source_rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype=dtype, quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype), last=True)


def convert(source: Source, target: Path, sample_rate: int, max_pause_seconds: float | None = None) -> Converted:
    """Write a recording as mono 24-bit FLAC at ``sample_rate`` Hz; the same recording gives the same bytes.

    Nothing clips: a signal that exceeds full scale after resampling is scaled to a peak of full scale. Pauses longer
    than ``max_pause_seconds`` are cut to that length; see :mod:`melnet.audio.pauses`. None keeps them.

    Raises
    ------
    UnusableAudio
        See :func:`mono_blocks`; also if no sample is left after resampling, if samples are too large to compute with,
        or if all are zero. Nothing is written to ``target``.
    OSError
        ``target`` cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/loud.wav", np.tile([2.0, -2.0], 24000), 48000, "FLOAT")
    ...     converted = convert(inspect(Path(folder, "loud.wav")), Path(folder, "a.flac"), 48000, max_pause_seconds=0.5)
    >>> converted.levels, converted.cuts
    (Levels(samples=48000, peak=2.0, rms=2.0, gain=0.5), [])
    """
    # Samples are kept until the gain and the pauses are known: in memory, or in the target's folder if they are many.
    with tempfile.SpooledTemporaryFile(max_size=SPOOLED, dir=os.fspath(target.parent)) as spool:
        levels, meter, sketch = _analyse(source, sample_rate, spool)
        if not levels.samples:
            raise UnusableAudio(f"too short for a single sample at {sample_rate} Hz")
        if not math.isfinite(levels.rms):
            raise UnusableAudio(f"samples too large to compute with: peak {levels.peak:.3g}")
        if levels.peak < SMALLEST:
            raise UnusableAudio("all samples are zero (or below 24 bits) once mixed to mono")
        cuts = []
        if max_pause_seconds is not None:
            cuts = find_cuts(meter.powers(), levels.samples, sample_rate, max_pause_seconds)
        try:
            with soundfile.SoundFile(os.fspath(target), "w", sample_rate, 1, "PCM_24", format="FLAC") as sound:
                for block in without_cuts(partial(_read, spool, source.dtype), levels.samples, cuts, sample_rate):
                    sound.write(block * levels.gain)
        except soundfile.LibsndfileError as error:
            raise OSError(f"{target}: cannot be written: {error.error_string}") from error
    return Converted(levels, cuts, sketch.direction())


def _read(spool: IO[bytes], dtype: str, start: int, stop: int) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    spool.seek(start * size)
    return np.frombuffer(spool.read((stop - start) * size), dtype)


def _analyse(source: Source, sample_rate: int, spool: IO[bytes]) -> tuple[Levels, LevelMeter, Sketch]:
    """Decode and resample a recording into the spool, and measure it."""
    meter, sketch = LevelMeter(sample_rate), Sketch()
    frames = max(1, min(BLOCK // source.channels, RESAMPLED_BLOCK * source.sample_rate // sample_rate))
    samples, peak, power = 0, 0.0, 0.0
    for block in resampled(mono_blocks(source, frames), source.sample_rate, sample_rate, source.dtype):
        spool.write(block.data)
        samples += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0)))
        with np.errstate(over="ignore"):  # `convert` refuses an infinite sum
            power += float(np.square(block, dtype=np.float64).sum())
        meter.update(block)
        sketch.update(block)
    return Levels(samples, peak, math.sqrt(power / max(samples, 1)), gain=1 / max(peak, 1.0)), meter, sketch
