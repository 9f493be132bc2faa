"""Read sound files of any format, and write WAV files.

Samples are floats; full scale is ±1.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from melnet.audio.integrity import NotAudio, UnusableAudio
from melnet.data.atomic import atomic_write

UNRECOGNISED = 1  # libsndfile's error code for "format not recognised"


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, soundfile.SoundFile]]:
    """Open a file twice: as bytes, and as sound at its first frame.

    Raises
    ------
    NotAudio
        It holds no bytes, or is in no format that libsndfile knows.
    UnusableAudio
        It cannot be read. Errors of libsndfile and of the file system inside the ``with`` block count too.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as empty, opened(Path(empty.name)):
    ...     pass
    Traceback (most recent call last):
    melnet.audio.integrity.NotAudio: empty: it holds no bytes
    """
    try:
        with path.open("rb") as file, path.open("rb", buffering=0) as raw:
            if os.fstat(file.fileno()).st_size == 0:
                raise NotAudio("empty: it holds no bytes")
            # By descriptor: libsndfile cannot open every name, and guesses formats by the suffix.
            with soundfile.SoundFile(raw.fileno(), closefd=False) as sound:
                yield file, sound
    except soundfile.LibsndfileError as error:
        text = error.error_string.strip().rstrip(".")
        if error.code == UNRECOGNISED:
            raise NotAudio("not audio in any format that can be read") from error
        raise UnusableAudio(f"truncated or damaged: {text}") from error
    except OSError as error:
        raise UnusableAudio(f"cannot be read: {error.strerror}") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except UnusableAudio as error:
        raise type(error)(f"{path}: {error}") from error


def stored_rate(path: Path) -> int:
    """Return the sample rate in Hz that a file's header gives; nothing else is checked.

    Raises
    ------
    UnusableAudio
        The file cannot be opened as audio; the message names it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     soundfile.write(file, np.zeros(80), 8000, format="WAV")
    ...     stored_rate(Path(file.name))
    8000
    """
    with _naming(path), opened(path) as (_, sound):
        return int(sound.samplerate)


def mean_of_channels(signals: np.ndarray, dtype: str, scale: float = 1.0) -> np.ndarray:
    """Mix (samples, channels) down to (samples,) of a floating-point ``dtype``, times ``scale``.

    >>> mean_of_channels(np.array([[0.5, 0.25], [1.0, 0.0]]), "float64").tolist()
    [0.375, 0.5]
    """
    # Channel by channel: over a short last axis numpy's sum takes 5 times as long, its mean 20 times.
    total = signals[:, 0].astype(dtype)
    for channel in range(1, signals.shape[1]):
        total += signals[:, channel]
    total *= scale / signals.shape[1]
    return total


def read_mono(path: Path, start: int = 0, frames: int = -1) -> np.ndarray:
    """Read ``frames`` samples (-1: all) from sample ``start`` on, as the mean of the channels; float32, (samples,).

    Where the file ends earlier, fewer samples come back.

    Raises
    ------
    UnusableAudio
        The file cannot be decoded; the message names it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     soundfile.write(file, np.zeros((80, 2)), 8000, format="WAV")
    ...     read_mono(Path(file.name), start=70, frames=20).shape
    (10,)
    """
    with _naming(path), opened(path) as (_, sound):
        sound.seek(min(start, sound.frames))
        return mean_of_channels(sound.read(frames, dtype="float32", always_2d=True), "float32")


def write_wav(path: Path, samples: np.ndarray, sample_rate: int, *, normalise: bool = False) -> None:
    """Write a mono 16-bit WAV file; it appears complete or not at all.

    Parameters
    ----------
    samples
        Floats, shape (samples,); values beyond ±1 are clipped.
    normalise
        Scale to a peak of 0.95; silence stays silence.

    Raises
    ------
    ValueError
        ``samples`` has another shape, or holds NaN or infinity.
    OSError
        ``path`` cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_wav(Path(folder, "a.wav"), np.array([0.1, -0.2]), 8000, normalise=True)
    ...     print(read_mono(Path(folder, "a.wav")).round(3))
    [ 0.475 -0.95 ]
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
