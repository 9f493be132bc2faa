"""Multiscale order (arXiv 1906.01083, section 6): which elements of a spectrogram each tier models, given which others.

From the last tier down to the second, the spectrogram is split into even and odd rows along an axis: frames at even
tiers, bands at odd ones. The odd rows belong to the tier; the even ones are its context, which the tiers before it
split further. The first tier models what is left, the coarsest grid. Each element belongs to exactly one tier, so the
product of the tiers' likelihoods is the likelihood of the whole spectrogram.

The functions take NumPy arrays (..., frames, bands). The module imports nothing else, so that parameters can be checked
without loading Keras.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class TierIndex(NamedTuple):
    """A tier's number, counted from 1, and the number of tiers in its model."""

    number: int
    total: int


class Shape(NamedTuple):
    """Frames and bands that a tier models; its context has the same shape."""

    frames: int
    bands: int


def divisors(tiers: int) -> tuple[int, int]:
    """Divisors that a model of ``tiers`` tiers needs in the number of frames and in the number of bands.

    >>> divisors(5)
    (4, 4)
    """
    return 2 ** (tiers // 2), 2 ** ((tiers - 1) // 2)


def axis(tier: int) -> int:
    """The axis along which a tier from 2 on interleaves its rows with the earlier tiers': -2, frames, or -1, bands.

    >>> axis(2), axis(3)
    (-2, -1)
    """
    return -2 if tier % 2 == 0 else -1


def shape(tier: int, tiers: int, frames: int, bands: int) -> Shape:
    """The shape of one tier's part of a spectrogram whose frames and bands the tiers can divide.

    >>> shape(1, 3, frames=8, bands=6)
    Shape(frames=4, bands=3)
    """
    for later in range(tiers, max(tier, 2) - 1, -1):
        frames, bands = (frames // 2, bands) if axis(later) == -2 else (frames, bands // 2)
    return Shape(frames, bands)


def rows(x: np.ndarray, along: int, first: int) -> np.ndarray:
    """A view of every second row along an axis (-2 or -1), from row ``first`` (0 or 1) on.

    >>> rows(np.array([[0, 1, 2, 3]]), -1, 1)
    array([[1, 3]])
    """
    return x[..., first::2, :] if along == -2 else x[..., first::2]


def split(x: np.ndarray, tiers: int) -> list[np.ndarray]:
    """The part of each tier as views of x (..., frames, bands), the first tier first; :func:`interleave` inverts it.

    Raises
    ------
    ValueError
        If the tiers cannot divide the frames or the bands.

    >>> [part.shape for part in split(np.zeros((8, 6)), 3)]
    [(4, 3), (4, 3), (8, 3)]
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
    """The spectrogram made of the parts of all tiers; given those of the first tiers only, the context of the next.

    Raises
    ------
    ValueError
        If a part has another shape than its context.

    >>> interleave([np.zeros((1, 2), int), np.ones((1, 2), int)])
    array([[0, 0],
           [1, 1]])
    """
    x = parts[0]
    for tier, part in enumerate(parts[1:], start=2):
        if part.shape != x.shape:
            raise ValueError(f"tier {tier}: a part of shape {part.shape} does not fit between rows of {x.shape}")
        doubled = list(x.shape)
        doubled[axis(tier)] *= 2
        x = np.stack([x, part], axis=axis(tier)).reshape(doubled)
    return x


def target_and_context(x: np.ndarray, tier: int, tiers: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Views of one tier's part of x (..., frames, bands) and of its context: all earlier parts, interleaved.

    Both have the same shape; the first tier has no context.

    >>> target, context = target_and_context(np.arange(4).reshape(2, 2), 2, 2)
    >>> target, context
    (array([[2, 3]]), array([[0, 1]]))
    """
    for later in range(tiers, tier, -1):
        x = rows(x, axis(later), 0)
    if tier == 1:
        return x, None
    return rows(x, axis(tier), 1), rows(x, axis(tier), 0)


def frame_rows(number: int, total: int) -> slice:
    """Which frames of a whole spectrogram tier ``number`` of ``total`` models.

    >>> frame_rows(1, 2), frame_rows(2, 2)
    (slice(0, None, 2), slice(1, None, 2))
    """
    step = 2 ** sum(axis(later) == -2 for later in range(number + 1, total + 1))
    return slice(step, None, 2 * step) if number > 1 and axis(number) == -2 else slice(0, None, step)


def tier_lookahead(number: int, total: int, lookahead: int) -> int:
    """How many of its own frames a tier is told ahead, where the whole spectrogram has a look-ahead of so many.

    >>> tier_lookahead(1, 3, lookahead=9)
    4
    """
    return lookahead // int(frame_rows(number, total).step)


def inputs_and_target(
    x: np.ndarray,
    singers: np.ndarray,
    index: TierIndex,
    tracks: Mapping[str, np.ndarray] | None = None,
    text: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs of a tier (:data:`melnet.model.tier.Inputs`) and its target, from spectrograms and their singers.

    Parameters
    ----------
    x : (batch, frames, bands)
    singers : (batch,), int32
    tracks
        What is sung: arrays (batch, frames + look-ahead, ...) by the names of the inputs.
    text
        What is sung, without times: int32 (batch, symbols). Only the first tier reads it.

    >>> inputs, target = inputs_and_target(np.zeros((2, 8, 6)), np.zeros(2, np.int32), TierIndex(2, 3))
    >>> sorted(inputs), target.shape
    (['context', 'singer', 'x'], (2, 4, 3))
    """
    target, context = target_and_context(x, *index)
    inputs = {"x": target, "singer": singers, **tier_tracks(tracks or {}, x.shape[1], index)}
    if text is not None and index.number == 1:
        inputs["text"] = text
    return (inputs if context is None else {**inputs, "context": context}), target


def tier_tracks(tracks: Mapping[str, np.ndarray], frames: int, index: TierIndex) -> dict[str, np.ndarray]:
    """The part of each track (batch, frames + look-ahead, ...) that belongs to a tier of spectrograms of ``frames``.

    >>> tier_tracks({"phonemes": np.arange(8)[None]}, frames=4, index=TierIndex(2, 2))["phonemes"]
    array([[1, 3, 5, 7]])
    """
    rows = frame_rows(*index)
    lengths = {
        name: frames // rows.step + tier_lookahead(*index, track.shape[1] - frames) for name, track in tracks.items()
    }
    return {name: track[:, rows][:, : lengths[name]] for name, track in tracks.items()}
