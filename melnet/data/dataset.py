"""Shards to normalised batches: random windows for training, the slices in order for evaluation.

Both hold a bounded number of slices in memory, whatever the size of the data set.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from melnet.data.shards import Shards
from melnet.data.texts import Texts, padded
from melnet.data.tracks import FrameTracks, Tracks
from melnet.errors import MelnetError

# Slices that the windows of an epoch are drawn from: 42,000 of 50 x 32, which is twelve hours of audio.
MAX_HELD_BYTES = 2**28
FLOOR_TOLERANCE = 1e-4  # rounding of float32, in normalised units


def _bands(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


# A list in JSON. It has digits that a float32 has not, but gives the same float32 when read back.
Bands: TypeAlias = Annotated[np.ndarray, PlainValidator(_bands), PlainSerializer(np.ndarray.tolist)]


@dataclass(frozen=True)
class Normalisation:
    """Per-band mean, standard deviation and range of the train split's log-mel values, each (bands,) float32.

    >>> bands = [np.full(2, value, np.float32) for value in (-4.0, 2.0, -11.0, 3.0)]
    >>> Normalisation(*bands).normalise(np.array([[-4.0, 0.0]])).tolist()
    [[0.0, 2.0]]
    """

    mean: Bands
    std: Bands
    low: Bands
    high: Bands

    @classmethod
    def identity(cls, bands: int) -> Self:
        """Leaves values as they are; the range is -1 to 1."""
        return cls(*(np.full(bands, value, np.float32) for value in (0, 1, -1, 1)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``normalisation.json``, which lies beside the shards."""
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def normalise(self, log_mel: np.ndarray) -> np.ndarray:
        """Zero mean and unit deviation per band; (..., bands) float32."""
        return (log_mel - self.mean) / self.std

    def denormalise(self, x: np.ndarray) -> np.ndarray:
        """The inverse: natural-log mel power."""
        return x * self.std + self.mean


def floored(x: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Elements on the log floor, or below it, as only generated values can be; bool, the shape of ``x``.

    ``x`` is normalised log-mel, (..., bands), and ``floor`` (bands,) is the log floor, normalised alike.

    >>> floored(np.array([[[-2.0, 0.5]]]), floor=np.array([-2.0, -2.0])).tolist()
    [[[True, False]]]
    """
    return x <= floor + FLOOR_TOLERANCE


class Batch(NamedTuple):
    """Training windows or slices that are used together.

    The last batch of slices is padded with zeros of weight 0: all batches have one shape, for which a step is compiled
    once.
    """

    x: np.ndarray
    """normalised log-mel, float32 (batch_size, frames, bands)"""
    weights: np.ndarray
    """float32 (batch_size,), 1 for a window or slice and 0 for padding"""
    singers: np.ndarray
    """int32 (batch_size,), the id of each one's singer; 0 where no singers are named"""
    tracks: FrameTracks | None = None
    """what is sung at each frame and in the look-ahead after the last one, (batch_size, frames + lookahead, ...);
    zeros for padding; None where no tracks are given"""
    text: np.ndarray | None = None
    """what is said or sung from the first frame on, without times: indices of symbols, int32 (batch_size, symbols),
    counted from 1 and followed by zeros; None where no texts are given"""


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
        part = slice(self.index * size, (self.index + 1) * size)
        tracks = None if batch.tracks is None else batch.tracks.map(lambda track: track[part])
        text = None if batch.text is None else batch.text[part]
        return Batch(batch.x[part], batch.weights[part], batch.singers[part], tracks, text)


class UnknownSinger(MelnetError):
    """The singer of a slice is not among the singers that the model knows."""


class WindowTooLong(MelnetError):
    """No stretch of a recording is as long as a training window."""


def ids_of(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Singer ids (names,) int32 of singers that a model knows; all 0 for a model without singers.

    >>> ids_of(["bo", "anna", "bo"], known=["anna", "bo"]).tolist(), ids_of(["bo"], known=[]).tolist()
    ([1, 0, 1], [0])
    """
    ids = {name: singer_id for singer_id, name in enumerate(known)}
    return np.array([ids[name] for name in names] if known else [0] * len(names), np.int32)


def batches(
    shards: Shards,
    normalisation: Normalisation,
    batch_size: int,
    singers: Sequence[str] = (),
    tracks: Tracks | None = None,
) -> Iterator[Batch]:
    """All slices once, in the order in which they were written.

    Parameters
    ----------
    singers
        Names whose positions are the singer ids; without any, all ids are 0.
    tracks
        What is sung in the recordings; None if the batches are to have no tracks.

    Raises
    ------
    UnknownSinger
        The singer of a slice is not among ``singers``.
    melnet.data.tracks.TracksError
        There are no tracks of a recording, or they have other frames.
    """
    slices = (
        item
        for group in range(len(shards.groups))
        for item in zip(shards.read_group(group), _singer_ids(shards, group, singers), strict=True)
    )
    slice_tracks = None if tracks is None else _slice_tracks(shards, tracks)
    for first in slices:
        x = np.zeros((batch_size, *first[0].shape), np.float32)
        weights, singer_ids = np.zeros(batch_size, np.float32), np.zeros(batch_size, np.int32)
        count = 0
        # Each slice is copied at once, since a view would keep its whole row group alive.
        for mel, singer_id in itertools.chain([first], itertools.islice(slices, batch_size - 1)):
            x[count], singer_ids[count] = mel, singer_id
            count += 1
        x[:count] = normalisation.normalise(x[:count])
        weights[:count] = 1
        of_batch = None if slice_tracks is None else _padded(itertools.islice(slice_tracks, count), batch_size)
        yield Batch(x, weights, singer_ids, of_batch)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches that hold all rows.

    >>> steps_per_epoch(rows=100, batch_size=16)
    7
    """
    return -(-rows // batch_size)


def draw(shards: Shards, count: int, *, seed: int) -> np.ndarray:
    """At most ``count`` random slices, from as few row groups as hold them; log-mel (n, frames, bands)."""
    rng = np.random.default_rng(seed)
    slices: list[np.ndarray] = []
    for group in rng.permutation(len(shards.groups)).tolist():
        slices.extend(shards.read_group(group))
        if len(slices) >= count:
            break
    return np.stack([slices[i] for i in np.sort(rng.permutation(len(slices))[:count])])


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
    length = -(-frames // shards.spec.frames) * shards.spec.frames
    runs: list[Passage] = []
    for run in _joined(_each_slice(shards, range(len(shards.groups))), length):
        runs.append(run)
        if sum(len(run.log_mel) == length for run in runs) == count:
            break
    longest = max(len(run.log_mel) for run in runs)
    return [run._replace(log_mel=run.log_mel[:frames]) for run in runs if len(run.log_mel) == longest][:count]


def read_stretches(shards: Shards, max_frames: int, *, seed: int) -> list[Passage]:
    """Stretches of recordings, joined from neighbouring slices, in the order in which they were written.

    Of a data set of more than ``max_frames`` frames, random row groups of about so many frames are read.
    """
    order = np.random.default_rng(seed).permutation(len(shards.groups))
    frames = np.cumsum([shards.groups[group].rows * shards.spec.frames for group in order])
    chosen = np.sort(order[: max(1, int(np.searchsorted(frames, max_frames, side="right")))])
    return list(_joined(_each_slice(shards, chosen.tolist())))


def _each_slice(shards: Shards, groups: Sequence[int]) -> Iterator[Passage]:
    """The slices of row groups, which are given in the order in which they were written."""
    positions = list(shards.positions())
    ends = np.cumsum([group.rows for group in shards.groups]).tolist()
    for group in groups:
        of_group = positions[ends[group] - shards.groups[group].rows : ends[group]]
        slices = zip(of_group, shards.read_group(group), shards.read_singers(group), strict=True)
        for (recording, start), log_mel, singer in slices:
            yield Passage(recording, start, log_mel, singer)


def _joined(slices: Iterator[Passage], max_frames: int | None = None) -> Iterator[Passage]:
    """Neighbouring slices of a recording as one passage, of at most ``max_frames`` frames."""
    parts: list[Passage] = []
    for part in slices:
        length = len(part.log_mel)
        follows = parts and (parts[-1].recording, parts[-1].start_frame + length) == (part.recording, part.start_frame)
        if parts and (not follows or len(parts) * length == max_frames):
            yield parts[0]._replace(log_mel=np.concatenate([part.log_mel for part in parts]))
            parts = []
        parts.append(part)
    if parts:
        yield parts[0]._replace(log_mel=np.concatenate([part.log_mel for part in parts]))


class Stretch(NamedTuple):
    """Neighbouring slices of one split: frames [first, first + frames) of a recording."""

    recording: str
    singer: str
    first: int
    frames: int


def stretches(shards: Shards) -> list[Stretch]:
    """Join the slices of a split into stretches, in the order in which they were written."""
    found: list[Stretch] = []
    length = shards.spec.frames
    singers = (name for group in range(len(shards.groups)) for name in shards.read_singers(group))
    for (recording, start), singer in zip(shards.positions(), singers, strict=True):
        if found and (found[-1].recording, found[-1].first + found[-1].frames) == (recording, start):
            found[-1] = found[-1]._replace(frames=found[-1].frames + length)
        else:
            found.append(Stretch(recording, singer, start, length))
    return found


class TrainingWindows:
    """Draws windows that begin at any frame of a data set and lie inside one stretch of a recording.

    All windows of the stretches that are held in memory are equally likely, and a window may be drawn twice. If the
    whole data set takes at most ``max_bytes``, it is read once and held. Otherwise each epoch draws from other row
    groups, chosen at random, as many as fit; each holds a window by itself, and neighbouring ones are joined.

    Parameters
    ----------
    frames
        Frames of a window.
    singers
        Names whose positions are the singer ids; without any, all ids are 0.
    tracks
        What is sung in the recordings; None if the batches are to have no tracks. They change no choice of windows.
    texts
        What is said or sung in the recordings, without times. Windows then begin with an utterance, and all utterances
        after which a window fits are equally likely.

    Raises
    ------
    WindowTooLong
        No stretch that is read at once has ``frames`` frames, or from no utterance on.
    melnet.data.tracks.TracksError, melnet.data.texts.TextsError
        The tracks or texts have other frames.

    >>> from tempfile import TemporaryDirectory
    >>> from melnet.audio.mel import MelSpec
    >>> from melnet.data.shards import ShardSpec, ShardWriter
    >>> with TemporaryDirectory() as folder:
    ...     with ShardWriter(Path(folder), ShardSpec(50, MelSpec()), shard_rows=4096) as writer:
    ...         writer.write("song.wav", np.array([0, 50]), np.zeros((2, 50, 32), np.float32))
    ...     windows = TrainingWindows(Shards(Path(folder)), frames=75)
    ...     stream = windows.batches(Normalisation.identity(32), batch_size=16, count=2, seed=1, epoch=0)
    ...     [batch.x.shape for batch in stream]
    [(16, 75, 32), (16, 75, 32)]
    """

    def __init__(
        self,
        shards: Shards,
        frames: int,
        singers: Sequence[str] = (),
        tracks: Tracks | None = None,
        texts: Texts | None = None,
        *,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.frames = frames
        self._shards, self._singers, self._tracks, self._texts = shards, singers, tracks, texts
        self._max_rows = max_bytes // (4 * shards.spec.frames * shards.spec.bands)
        self._rows = np.array([group.rows for group in shards.groups])
        self._ends = np.cumsum(self._rows)
        self._stretches = stretches(shards)
        for given in (tracks, texts):
            if given is not None:
                given.check(shards.spec.mel)
        lengths = np.array([stretch.frames for stretch in self._stretches], np.int64)
        rows = lengths // shards.spec.frames
        self._begins_stretch = np.zeros(len(shards), bool)
        self._begins_stretch[np.cumsum(rows) - rows] = True
        self._choices = np.arange(len(shards.groups))
        self._fits = len(shards) <= self._max_rows
        if self._fits:
            longest = lengths.max(initial=0)
        else:
            lengths_by_group = np.array([self._runs(self._choices[[i]])[1].max(initial=0) for i in self._choices])
            self._choices = np.flatnonzero(lengths_by_group >= frames)
            longest = lengths_by_group.max()
        if longest < frames:
            folder = shards.paths[0].parent
            raise WindowTooLong(
                f"{frames} frames are more than the longest uninterrupted stretch of a recording in {folder} has: "
                f"{longest}"
            )
        self.available_frames = int(lengths[lengths >= frames].sum())
        """frames of all stretches that are long enough for a window"""
        self.utterances = self.symbols = 0
        """windows that begin with an utterance, and the symbols of the longest text of one; 0 without texts"""
        if texts is not None:
            windows = [texts.windows(item.recording, item.first, item.frames, frames) for item in self._stretches]
            found = [window for of_stretch in windows for window in of_stretch]
            if not found:
                raise WindowTooLong(f"{texts.path}: no utterance is followed by {frames} frames of its recording")
            self.utterances, self.symbols = len(found), max(len(window.text) for window in found)
        self._held: _Held | None = None

    def batches(
        self, normalisation: Normalisation, batch_size: int, count: int, *, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """The windows of an epoch in ``count`` full batches; they depend on ``seed`` and ``epoch`` alone.

        Raises
        ------
        UnknownSinger
            The singer of a slice is not among the singers.
        """
        rng = np.random.default_rng([seed, epoch])
        held = self._hold(self._choose(rng))
        if self._texts is not None:
            for drawn in rng.integers(len(held.utterances), size=(count, batch_size)):
                chosen = [held.utterances[i] for i in drawn]
                first, stretch = np.array([(item.first, item.stretch) for item in chosen]).T
                text = padded([item.text for item in chosen], self.symbols)
                yield self._batch(held, normalisation, first, stretch)._replace(text=text)
            return
        starts = np.maximum(held.lengths - self.frames + 1, 0)  # window starts of each stretch
        ends = np.cumsum(starts)
        for drawn in rng.integers(ends[-1], size=(count, batch_size)):
            stretch = np.searchsorted(ends, drawn, side="right")
            first = held.firsts[stretch] + drawn - (ends - starts)[stretch]
            yield self._batch(held, normalisation, first, stretch)

    def _batch(self, held: "_Held", normalisation: Normalisation, first: np.ndarray, stretch: np.ndarray) -> Batch:
        """The windows that begin at the frames ``first`` of ``held`` and lie in the stretches ``stretch``."""
        x = normalisation.normalise(held.log_mel[first[:, None] + np.arange(self.frames)])
        singers = held.singer_ids[first // self._shards.spec.frames]
        return Batch(x, np.ones(len(first), np.float32), singers, self._tracks_of(held, first, stretch))

    def _tracks_of(self, held: "_Held", first: np.ndarray, stretch: np.ndarray) -> FrameTracks | None:
        if self._tracks is None or held.tracks is None:
            return None
        lookahead = self._tracks.lookahead  # each stretch of `held.tracks` is longer by it
        at = (first + stretch * lookahead)[:, None] + np.arange(self.frames + lookahead)
        return held.tracks.map(lambda track: track[at])

    def _choose(self, rng: np.random.Generator) -> np.ndarray:
        """The row groups of an epoch, in the order in which they were written."""
        if self._fits:
            return self._choices
        order = rng.permutation(self._choices)
        fitting = np.searchsorted(np.cumsum(self._rows[order]), self._max_rows, side="right")
        return np.sort(order[: max(1, fitting)])

    def _hold(self, groups: np.ndarray) -> "_Held":
        if self._held is None or not np.array_equal(self._held.groups, groups):
            self._held = None  # frees its memory before the next groups are read
            self._held = self._read(groups)
        return self._held

    def _read(self, groups: np.ndarray) -> "_Held":
        spec = self._shards.spec
        rows = int(self._rows[groups].sum())
        slices, singer_ids = np.empty((rows, spec.frames, spec.bands), np.float32), np.empty(rows, np.int32)
        done = 0
        for group in groups.tolist():
            part = slice(done, done + int(self._rows[group]))
            slices[part] = self._shards.read_group(group)
            singer_ids[part] = _singer_ids(self._shards, group, self._singers)
            done = part.stop
        firsts, lengths = self._runs(groups)
        tracks, utterances = None, []
        if self._tracks is not None or self._texts is not None:
            places = self._places(groups, firsts, lengths)
            if self._tracks is not None:
                parts = [self._tracks.window(place.recording, place.first, place.frames) for place in places]
                tracks = FrameTracks.joined(parts, np.concatenate)
            if self._texts is not None:
                utterances = self._read_texts(self._texts, places, firsts.tolist())
        return _Held(groups, slices.reshape(-1, spec.bands), singer_ids, firsts, lengths, tracks, utterances)

    def _read_texts(self, texts: Texts, places: Sequence[Stretch], firsts: Sequence[int]) -> list["_HeldUtterance"]:
        """The windows of stretches that begin with an utterance."""
        return [
            _HeldUtterance(first + frame - place.first, number, text)
            for number, (place, first) in enumerate(zip(places, firsts, strict=True))
            for frame, text in texts.windows(place.recording, place.first, place.frames, self.frames)
        ]

    def _places(self, groups: np.ndarray, firsts: np.ndarray, lengths: np.ndarray) -> list[Stretch]:
        """Where the stretches of row groups lie in their recordings."""
        frames = self._shards.spec.frames
        rows = np.concatenate([np.arange(self._ends[i] - self._rows[i], self._ends[i]) for i in groups.tolist()])
        begins = rows[firsts // frames]  # of each stretch, among all rows of the data set
        stretch_begins = np.flatnonzero(self._begins_stretch)
        found = np.searchsorted(stretch_begins, begins, side="right") - 1
        places = []
        for begin, number, length in zip(begins.tolist(), found.tolist(), lengths.tolist(), strict=True):
            stretch = self._stretches[number]
            first = stretch.first + (begin - int(stretch_begins[number])) * frames
            places.append(stretch._replace(first=first, frames=length))
        return places

    def _runs(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First frame and number of frames of each stretch in the joined frames of row groups."""
        parts = [self._begins_stretch[self._ends[group] - self._rows[group] : self._ends[group]] for group in groups]
        begins = np.concatenate(parts)
        # A group begins a stretch where the one before it is not there.
        apart = np.diff(groups, prepend=-2) != 1
        begins[(np.cumsum(self._rows[groups]) - self._rows[groups])[apart]] = True
        firsts = np.flatnonzero(begins) * self._shards.spec.frames
        return firsts, np.diff(firsts, append=len(begins) * self._shards.spec.frames)


class _Held(NamedTuple):
    """Row groups in memory, all their frames one after the other."""

    groups: np.ndarray
    log_mel: np.ndarray  # (frames, bands)
    singer_ids: np.ndarray  # of each slice
    firsts: np.ndarray  # first frame of each stretch
    lengths: np.ndarray  # frames of each stretch
    tracks: FrameTracks | None  # of the stretches, each with its look-ahead
    utterances: Sequence["_HeldUtterance"]  # that windows begin with, if there are texts


class _HeldUtterance(NamedTuple):
    """A window that begins with an utterance."""

    first: int  # frame among all that are held
    stretch: int
    text: np.ndarray


def _singer_ids(shards: Shards, group: int, singers: Sequence[str]) -> np.ndarray:
    """Singer id of each slice of a row group; int32 (rows,)."""
    names = shards.read_singers(group)
    unknown = set(names) - set(singers)
    if singers and unknown:
        path = shards.paths[shards.groups[group].shard]
        raise UnknownSinger(f"{path}: singer {min(unknown)!r} is none of {', '.join(singers)}")
    return ids_of(names, singers)


def _slice_tracks(shards: Shards, tracks: Tracks) -> Iterator[FrameTracks]:
    """Tracks of each slice, in the order in which they were written."""
    tracks.check(shards.spec.mel)
    for recording, start in shards.positions():
        yield tracks.window(recording, start, shards.spec.frames)


def _padded(tracks: Iterable[FrameTracks], size: int) -> FrameTracks:
    """Tracks of slices as those of a batch of ``size``, padded with zeros."""
    joined = FrameTracks.joined(list(tracks), np.stack)
    return joined.map(lambda track: np.pad(track, [(0, size - len(track)), *[(0, 0)] * (track.ndim - 1)]))
