"""Tell whether two recordings are one, at any gain and in any lossless format."""

import math
from pathlib import Path

import numpy as np
import scipy.fft

from melnet.audio.convert import BLOCK, inspect, mono_blocks
from melnet.audio.pauses import LOWEST_HZ

MIN_LIKENESS = 0.99  # of the sketches of one recording
# Share of the power in which copies of one recording may differ. Rounding to 16 bits changes less, unless a recording
# is 70 dB below full scale; two takes of one song differ in nearly all of it.
MAX_DIFFERENCE = 1e-3


def alike(sketches: np.ndarray, sketch: np.ndarray) -> np.ndarray:
    """Find the recordings that may be the one with ``sketch``; see :class:`melnet.audio.sketch.Sketch`.

    ``sketches`` has shape (recordings, size), ``sketch`` (size,). Returns their indices in ascending order.

    >>> alike(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.array([0.0, 1.0])).tolist()
    [1, 2]
    """
    return np.flatnonzero(np.abs(sketches @ sketch) >= MIN_LIKENESS)


def same_recording(first: Path, second: Path) -> bool:
    """Whether two files hold the same samples up to a gain and to rounding, compared block by block.

    The channels are averaged. What lies below 200 Hz is left out of the comparison: two takes with the same hum are two
    takes.

    Raises
    ------
    UnusableAudio
        One of them cannot be read.

    >>> import soundfile, tempfile
    >>> song = np.random.default_rng(0).normal(0, 0.1, 48000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", song, 48000, "PCM_16")
    ...     soundfile.write(f"{folder}/b.flac", 0.5 * song, 48000, "PCM_24")
    ...     soundfile.write(f"{folder}/c.wav", song[::-1], 48000)
    ...     [same_recording(Path(folder, "a.wav"), Path(folder, name)) for name in ("b.flac", "c.wav")]
    [True, False]
    """
    one, other = inspect(first), inspect(second)
    if (one.sample_rate, one.frames) != (other.sample_rate, other.frames):
        return False
    frames = max(1, BLOCK // max(one.channels, other.channels))
    products = np.zeros(3)
    for blocks in zip(mono_blocks(one, frames), mono_blocks(other, frames), strict=True):
        lowest = math.ceil(LOWEST_HZ * len(blocks[0]) / one.sample_rate)
        a, b = (scipy.fft.rfft(block.astype(np.float64))[lowest:].view(np.float64) for block in blocks)
        products += a @ a, a @ b, b @ b
    own, cross, others = products
    return bool(own > 0 and others > 0 and (cross / own) * (cross / others) >= 1 - MAX_DIFFERENCE)
