"""The recording that samples continue, made ready by the code that makes the corpus ready."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melnet.audio.convert import convert, inspect
from melnet.audio.files import read_mono
from melnet.audio.integrity import UnusableAudio
from melnet.audio.spectrogram import log_mel
from melnet.saved import Description
from stages.command import StageError


class Prime(NamedTuple):
    """The end of a recording, as the model will hear it."""

    signal: np.ndarray
    """(samples,), whole hops: its last sample is where the last frame is centred"""
    log_mel: np.ndarray
    """(frames, bands)"""


def read_prime(path: Path, seconds: float, description: Description) -> Prime:
    """The last ``seconds`` of a recording; raise :class:`StageError` if it is unusable, too short or silent."""
    mel, rate = description.mel, description.sample_rate
    try:
        with tempfile.TemporaryDirectory() as folder:
            clean = Path(folder) / "prime.flac"
            convert(inspect(path), clean, rate)
            signal = read_mono(clean)
    except UnusableAudio as error:
        raise StageError(f"generate.prime: {path}: {error}") from error
    # Frames centred so near to the end that half of what they see is missing would teach a fade-out.
    whole = (len(signal) - mel.n_fft // 2) // mel.hop_length
    frames = min(whole, round(seconds * rate / mel.hop_length))
    if frames < description.frames:
        least = (description.frames * mel.hop_length + mel.n_fft // 2) / rate
        found = min(seconds, len(signal) / rate)
        raise StageError(
            f"generate.prime: {path}: {found:.2f} s are too short to continue; at least {least:.2f} s are needed, as "
            "much as a slice that the model was trained on (see also generate.prime_seconds)"
        )
    heard = log_mel(signal, mel, rate)[whole - frames + 1 : whole + 1]
    if (heard <= np.log(np.float32(mel.floor))).all():
        raise StageError(f"generate.prime: {path}: its last {frames * mel.hop_length / rate:.2f} s are silent")
    return Prime(signal[: whole * mel.hop_length][-frames * mel.hop_length :], heard)
