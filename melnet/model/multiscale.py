"""Multiscale order (arXiv 1906.01083, section 6): which elements of a spectrogram each tier models, given which.

From the last tier to the second, a spectrogram is split into its even and its odd rows along alternating axes: the odd
ones are the tier's, the even ones are split on by the tier before. Even tiers split frames, odd ones bands; the first
holds what is left, the coarsest. Every element belongs to exactly one tier, so the tiers' likelihoods multiply to that
of the whole spectrogram.

Everything here takes arrays whose last two axes are frames and bands (or has the axes named), NumPy's or a tensor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def divisors(tiers: int) -> tuple[int, int]:
    """Least numbers of frames and of bands of which a spectrogram's must be multiples: its tiers halve them in turn.

    Examples
    --------
    >>> divisors(3)
    (2, 2)
    """
    return 2 ** (tiers // 2), 2 ** ((tiers - 1) // 2)


def axis(tier: int) -> int:
    """The axis, -2 (frames) or -1 (bands), along which a tier from 2 on interleaves the rows it adds."""
    return -2 if tier % 2 == 0 else -1


class Shape(NamedTuple):
    """Frames and bands of what a tier models; its context, the earlier tiers interleaved, has the same."""

    frames: int
    bands: int


def shape(tier: int, tiers: int, frames: int, bands: int) -> Shape:
    """What a tier of ``tiers`` holds of a spectrogram of ``frames`` frames and ``bands`` bands, both divisible."""
    for later in range(tiers, max(tier, 2) - 1, -1):
        frames, bands = (frames // 2, bands) if axis(later) == -2 else (frames, bands // 2)
    return Shape(frames, bands)


def rows(x: np.ndarray, along: int, first: int) -> np.ndarray:
    """Every second row along an axis, -2 or -1, from the first (0) or the second (1) on."""
    return x[..., first::2, :] if along == -2 else x[..., first::2]


def split(x: np.ndarray, tiers: int) -> list[np.ndarray]:
    """The parts (..., frames, bands) of each tier, the first tier's first; :func:`interleave` is the inverse.

    Raises
    ------
    ValueError
        If the tiers cannot divide the frames or bands.
    """
    for size, divisor, name in zip(x.shape[-2:], divisors(tiers), ("frames", "bands"), strict=True):
        if size % divisor:
            raise ValueError(f"{size} {name}: {tiers} tiers need a multiple of {divisor}")
    parts = []
    for tier in range(tiers, 1, -1):
        parts.append(rows(x, axis(tier), 1))
        x = rows(x, axis(tier), 0)
    return [x, *reversed(parts)]


def interleave(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The spectrogram, or the part of it that the first tiers hold, of the parts of each tier."""
    x = parts[0]
    for tier, part in enumerate(parts[1:], start=2):
        if part.shape != x.shape:
            raise ValueError(f"tier {tier}: a part of shape {part.shape} does not fit between rows of {x.shape}")
        doubled = list(x.shape)
        doubled[axis(tier)] *= 2
        x = np.stack([x, part], axis=axis(tier)).reshape(doubled)
    return x


def target_and_context(x: np.ndarray, tier: int, tiers: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The part of a tier and, from the second tier on, that of all earlier ones interleaved, of the same shape."""
    for later in range(tiers, tier, -1):
        x = rows(x, axis(later), 0)
    if tier == 1:
        return x, None
    return rows(x, axis(tier), 1), rows(x, axis(tier), 0)
