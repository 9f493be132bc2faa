"""Recordings given to a model: whole, and the end of one, a prime, which samples continue."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melnet.audio.convert import convert, inspect
from melnet.audio.files import read_mono
from melnet.audio.integrity import UnusableAudio
from melnet.audio.mel import MelSpec
from melnet.audio.spectrogram import log_mel

PRIME_SECONDS = 4.0  # of the end of a recording, unless another length is wanted


class Prime(NamedTuple):
    """The end of a recording, as audio and as spectrogram."""

    signal: np.ndarray
    """(samples,), whole hops: the last frame is centred on the last sample"""
    log_mel: np.ndarray
    """(frames, bands)"""


def read_recording(path: Path, sample_rate: int) -> np.ndarray:
    """Read a recording of any format and rate as the corpus is read; mono at ``sample_rate`` Hz, float32 (samples,).

    Raises
    ------
    UnusableAudio
        It cannot be read, or is silent; the message names the file.

    >>> import soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", np.sin(np.arange(96000) / 10), 48000)
    ...     len(read_recording(Path(folder, "a.wav"), 24000))
    48000
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            converted = Path(folder) / "converted.flac"
            convert(inspect(path), converted, sample_rate)
            return read_mono(converted)
    except UnusableAudio as error:
        raise UnusableAudio(f"{path}: {error}") from error


def read_prime(path: Path, seconds: float, mel: MelSpec, min_frames: int) -> Prime:
    """Read the last ``seconds`` of a recording of any format and rate.

    Parameters
    ----------
    min_frames
        Least number of frames that a model can continue.

    Raises
    ------
    UnusableAudio
        The recording cannot be read, is too short or ends in silence; the message names the file.

    >>> import soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", np.sin(np.arange(96000) / 10), 48000)
    ...     prime = read_prime(Path(folder, "a.wav"), 1.0, MelSpec(), min_frames=20)
    >>> prime.log_mel.shape
    (47, 32)
    """
    rate, hop = mel.sample_rate, mel.hop_length
    signal = read_recording(path, rate)
    # A frame whose window reaches beyond the end of the recording would look like a fade-out.
    whole = (len(signal) - mel.n_fft // 2) // hop
    frames = min(whole, round(seconds * rate / hop))
    if frames < min_frames:
        least = (min_frames * hop + mel.n_fft // 2) / rate
        found = min(seconds, len(signal) / rate)
        raise UnusableAudio(
            f"{path}: {found:.2f} s are too short to continue; at least {least:.2f} s are needed, as much as a slice "
            "that the model was trained on"
        )
    values = log_mel(signal, mel)[whole - frames + 1 : whole + 1]
    if (values <= mel.log_floor).all():
        raise UnusableAudio(f"{path}: its last {frames * hop / rate:.2f} s are silent")
    return Prime(signal[: whole * hop][-frames * hop :], values)
