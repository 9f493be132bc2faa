"""Join two signals without a click."""

import numpy as np


def crossfade(before: np.ndarray, after: np.ndarray, *, overlap: int, fade: int) -> np.ndarray:
    """Join two signals, (samples,) each, that overlap in time and there differ in little but phase; float32 (samples,).

    ``after`` begins ``overlap`` samples before ``before`` ends. It is moved by at most ``fade // 2`` samples to where
    the two correlate best; then they are crossfaded over the last ``fade`` samples of ``before``.

    Raises
    ------
    ValueError
        The overlap is shorter than two fades or longer than ``before``, or ``after`` ends less than a fade later.

    >>> tone = np.sin(np.arange(1000) / 5)
    >>> joined = crossfade(tone[:600], tone[400:], overlap=200, fade=50)
    >>> bool(np.allclose(joined, tone, atol=1e-6))
    True
    """
    if not (2 * fade <= overlap <= min(len(before), len(after) - fade)):
        raise ValueError(
            f"overlap of {overlap} samples of signals of {len(before)} and {len(after)}, with a fade of {fade}"
        )
    end = before[-fade:]
    # The piece of `after` that begins at lag 0 lies where the fade does in time; the search goes half a fade each way.
    first = overlap - fade - fade // 2
    piece = after[first : first + 2 * fade]
    correlation = np.correlate(piece, end, mode="valid")
    energy = np.convolve(np.square(piece), np.ones(fade, piece.dtype), mode="valid")
    start = first + int(np.argmax(correlation / np.sqrt(np.maximum(energy, np.finfo(np.float32).tiny))))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    # In phase after the search, amplitudes add rather than powers: a linear fade keeps the level.
    crossed = (1 - ramp) * end + ramp * after[start : start + fade]
    return np.concatenate([before[:-fade], crossed, after[start + fade :]]).astype(np.float32)
