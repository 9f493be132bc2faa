"""Shards to normalised batches: a seeded, shuffled stream for training and an ordered one for evaluation.

Both hold a bounded number of slices in memory, whatever the size of the data set.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np

from melnet.data.shards import Shards

# Slices that are shuffled together and so held in memory: 42,000 of 50 x 32, which is twelve hours of audio.
WINDOW_BYTES = 2**28


@dataclass(frozen=True)
class Normalisation:
    """Per-band mean, standard deviation and range of the train split's log-mel values, each (bands,) float32.

    >>> bands = [np.full(2, value, np.float32) for value in (-4.0, 2.0, -11.0, 3.0)]
    >>> Normalisation(*bands).normalise(np.array([[-4.0, 0.0]])).tolist()
    [[0.0, 2.0]]
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def identity(cls, bands: int) -> Self:
        """Leaves values as they are; the range is -1 to 1."""
        return cls(*(np.full(bands, value, np.float32) for value in (0, 1, -1, 1)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``normalisation.json``, which lies beside the shards."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        return cls(*(np.array(content[field.name], np.float32) for field in fields(cls)))

    def to_dict(self) -> dict[str, list[float]]:
        # float() of a float32 prints digits it does not have, but gives the same float32 when read back.
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    def normalise(self, log_mel: np.ndarray) -> np.ndarray:
        """Zero mean and unit deviation per band; (..., bands) float32."""
        return (log_mel - self.mean) / self.std

    def denormalise(self, x: np.ndarray) -> np.ndarray:
        """The inverse: natural-log mel power."""
        return x * self.std + self.mean


class Batch(NamedTuple):
    """Slices that are used together.

    The last batch of an epoch is padded with zeros of weight 0: all batches have one shape, for which a training step
    is compiled once.
    """

    x: np.ndarray
    """normalised log-mel, float32 (batch_size, frames, bands)"""
    weights: np.ndarray
    """float32 (batch_size,), 1 for a slice and 0 for padding"""
    singers: np.ndarray
    """int32 (batch_size,), the id of each slice's singer; 0 where no singers are named"""


@dataclass(frozen=True)
class ProcessShard:
    """The rows of every batch that one of several processes feeds to its own devices.

    >>> batch = Batch(np.zeros((4, 50, 32)), np.ones(4), np.array([5, 6, 7, 8]))
    >>> ProcessShard(index=1, processes=2).rows(batch).singers.tolist()
    [7, 8]
    """

    index: int = 0
    processes: int = 1

    def rows(self, batch: Batch) -> Batch:
        """The rows of this process, out of a batch whose size ``processes`` divides."""
        size = len(batch.x) // self.processes
        return Batch(*(column[self.index * size : (self.index + 1) * size] for column in batch))


class UnknownSinger(ValueError):
    """The singer of a slice is not among the singers that the model knows."""


def ids_of(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Singer ids (names,) int32 of singers that a model knows; all 0 for a model without singers.

    >>> ids_of(["bo", "anna", "bo"], known=["anna", "bo"]).tolist(), ids_of(["bo"], known=[]).tolist()
    ([1, 0, 1], [0])
    """
    ids = {name: singer_id for singer_id, name in enumerate(known)}
    return np.array([ids[name] for name in names] if known else [0] * len(names), np.int32)


def batches(
    shards: Shards, normalisation: Normalisation, batch_size: int, singers: Sequence[str] = ()
) -> Iterator[Batch]:
    """All slices once, in the order in which they were written.

    Parameters
    ----------
    singers
        Names whose positions are the singer ids; without any, all ids are 0.

    Raises
    ------
    UnknownSinger
        The singer of a slice is not among ``singers``.
    """
    slices = (item for group in range(len(shards.groups)) for item in _slices(shards, group, singers))
    yield from _batched(slices, normalisation, batch_size)


def shuffled_batches(
    shards: Shards,
    normalisation: Normalisation,
    batch_size: int,
    singers: Sequence[str] = (),
    *,
    seed: int,
    first_epoch: int = 0,
    window_bytes: int = WINDOW_BYTES,
) -> Iterator[Batch]:
    """Endless epochs of all slices, each in an order that depends only on ``seed`` and the epoch's number.

    Row groups are shuffled over the whole data set, then read in windows of ``window_bytes`` and at most one more
    group, which are shuffled in memory: the shuffle of a data set that fits into one window is uniform. An epoch has
    :func:`steps_per_epoch` batches.
    """
    window_rows = -(-window_bytes // (4 * shards.spec.frames * shards.spec.bands))
    epoch = first_epoch
    while True:
        rng = np.random.default_rng([seed, epoch])
        windows = _windows(shards, rng.permutation(len(shards.groups)).tolist(), window_rows, singers)
        yield from _batched(_mixed(windows, rng), normalisation, batch_size)
        epoch += 1


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches that hold all rows.

    >>> steps_per_epoch(rows=100, batch_size=16)
    7
    """
    return -(-rows // batch_size)


def draw(shards: Shards, count: int, *, seed: int) -> np.ndarray:
    """At most ``count`` random slices, from as few row groups as hold them; log-mel (n, frames, bands)."""
    rng = np.random.default_rng(seed)
    window = next(_windows(shards, rng.permutation(len(shards.groups)).tolist(), count))
    return np.stack([window[i][0] for i in np.sort(rng.permutation(len(window))[:count])])


class Passage(NamedTuple):
    """A stretch of a recording."""

    recording: str
    start_frame: int
    log_mel: np.ndarray  # (frames, bands)
    singer: str = ""


def passages(shards: Shards, count: int, frames: int) -> list[Passage]:
    """The first passages of ``frames`` frames, joined from neighbouring slices of a recording.

    There are at most ``count`` passages, all of one length. Where no recording is long enough they are shorter, but at
    least one slice long.
    """
    length = shards.spec.frames
    runs: list[Passage] = []
    last: tuple[str, int] | None = None
    wanted = -(-frames // length)
    positions = shards.positions()
    for group in range(len(shards.groups)):
        for mel, singer in zip(shards.read_group(group), shards.read_singers(group), strict=True):
            recording, start = next(positions)
            if last != (recording, start - length) or len(runs[-1].log_mel) >= wanted * length:
                runs.append(Passage(recording, start, mel, singer))
            else:
                runs[-1] = runs[-1]._replace(log_mel=np.concatenate([runs[-1].log_mel, mel]))
            last = (recording, start)
        if sum(len(run.log_mel) >= wanted * length for run in runs) >= count:
            break
    longest = max(len(run.log_mel) for run in runs)
    return [run._replace(log_mel=run.log_mel[:frames]) for run in runs if len(run.log_mel) == longest][:count]


class Stretch(NamedTuple):
    """Neighbouring slices of one split: frames [first, first + frames) of a recording."""

    recording: str
    singer: str
    first: int
    frames: int


def stretches(shards: Shards) -> list[Stretch]:
    """Join the slices of a split into stretches, in the order in which they were written."""
    length = shards.spec.frames
    found: list[Stretch] = []
    singers = (name for group in range(len(shards.groups)) for name in shards.read_singers(group))
    for (recording, start), singer in zip(shards.positions(), singers, strict=True):
        if found and (found[-1].recording, found[-1].first + found[-1].frames) == (recording, start):
            found[-1] = found[-1]._replace(frames=found[-1].frames + length)
        else:
            found.append(Stretch(recording, singer, start, length))
    return found


Item: TypeAlias = tuple[np.ndarray, int]  # a slice (frames, bands) and its singer id


def _slices(shards: Shards, group: int, singers: Sequence[str]) -> list[Item]:
    mels = list(shards.read_group(group))
    if not singers:
        return [(mel, 0) for mel in mels]
    ids = {name: singer_id for singer_id, name in enumerate(singers)}
    names = shards.read_singers(group)
    unknown = set(names) - set(ids)
    if unknown:
        path = shards.paths[shards.groups[group].shard]
        raise UnknownSinger(f"{path}: singer {min(unknown)!r} is none of {', '.join(singers)}")
    return [(mel, ids[name]) for mel, name in zip(mels, names, strict=True)]


def _windows(shards: Shards, order: list[int], rows: int, singers: Sequence[str] = ()) -> Iterator[list[Item]]:
    """Lists of at least ``rows`` slices, from whole row groups; views of them, so that nothing is held twice."""
    window: list[Item] = []
    for group in order:
        window.extend(_slices(shards, group, singers))
        if len(window) >= rows:
            yield window
            window = []
    if window:
        yield window


def _mixed(windows: Iterator[list[Item]], rng: np.random.Generator) -> Iterator[Item]:
    """The slices of each window in random order."""
    for window in windows:
        for i in rng.permutation(len(window)).tolist():
            yield window[i]
        window.clear()  # frees its memory before the next window is read


def _batched(slices: Iterator[Item], normalisation: Normalisation, size: int) -> Iterator[Batch]:
    """Batches of ``size`` slices. Each slice is copied at once, since a view would keep its whole row group alive."""
    for first in slices:
        x = np.zeros((size, *first[0].shape), np.float32)
        weights, singers = np.zeros(size, np.float32), np.zeros(size, np.int32)
        count = 0
        for mel, singer in itertools.chain([first], itertools.islice(slices, size - 1)):
            x[count], singers[count] = mel, singer
            count += 1
        x[:count] = normalisation.normalise(x[:count])
        weights[:count] = 1
        yield Batch(x, weights, singers)
