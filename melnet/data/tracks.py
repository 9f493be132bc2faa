"""Condition tracks along the frames of spectrograms, in one Parquet file, ``tracks.parquet``: a row per recording.

A track says what is sung at each frame: ``melody`` its pitch and whether it is voiced, ``phonemes`` its phoneme. The
rows hold whole recordings and not slices, since a model may see the conditions of frames after the end of a slice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from melnet.audio.mel import MelSpec
from melnet.data.atomic import atomic_write
from melnet.errors import MelnetError

FILE = "tracks.parquet"
METADATA_KEY = b"melnet"
GROUP_FRAMES = 2**18  # of a row group: what is buffered, and what is read at once
HELD_GROUPS = 4  # row groups that stay in memory; recordings are asked for in the order of the file
ABSENT = 0
"""index of a frame whose phoneme is not known; in the file it is null"""
UNKNOWN = -1.0
"""voicing of a frame whose melody is not known"""
BIN_CENTS = 10.0  # of the histogram from which the range is read
RANGE_PERCENT = (0.1, 99.9)  # of the voiced frames: trackers go astray in some

Condition: TypeAlias = Literal["melody", "phonemes"]
CONDITIONS: tuple[Condition, ...] = ("melody", "phonemes")
"""names of the tracks, in the order of the fields of :class:`FrameTracks`"""


class TracksError(MelnetError):
    """Tracks cannot be used; the message names the file."""


class FrameTracks(NamedTuple):
    """The condition tracks of consecutive frames, or of batches of them; None where a condition is not used.

    >>> tracks = FrameTracks(melody=None, phonemes=np.array([3, 1], np.int32))
    >>> tracks.window(first=1, frames=3).phonemes.tolist()
    [1, 0, 0]
    """

    melody: np.ndarray | None
    """float32 (..., frames, 2): natural logarithm of the fundamental in Hz, and 1 where it is voiced, 0 where it is
    not, ``UNKNOWN`` where that is not known; where it is not voiced, the first goes straight from the last voiced frame
    to the next"""
    phonemes: np.ndarray | None
    """int32 (..., frames): index in the vocabulary, counted from 1; ``ABSENT``, 0, where it is not known"""

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Apply a function to each track that is there."""
        return type(self)(*(None if track is None else function(track) for track in self))

    def window(self, first: int, frames: int) -> Self:
        """Frames [first, first + frames) of unbatched tracks; outside nothing is voiced, and no phoneme is known."""
        length = next(len(track) for track in self if track is not None)
        at = np.arange(first, first + frames)
        outside = (at < 0) | (at >= length)
        taken = self.map(lambda track: track[np.clip(at, 0, length - 1)])  # a copy, which may be changed
        if taken.melody is not None:
            taken.melody[outside, 1] = 0
        if taken.phonemes is not None:
            taken.phonemes[outside] = ABSENT
        return taken

    def inputs(self) -> dict[str, np.ndarray]:
        """The tracks that are there, by the names that the inputs of a tier have."""
        return {name: track for name, track in self._asdict().items() if track is not None}

    def left_out(self, condition: Condition, items: np.ndarray) -> Self:
        """Batched tracks in which a condition is not known in some items; ``items`` is bool (batch,).

        >>> tracks = FrameTracks(melody=None, phonemes=np.array([[3, 1], [2, 2]], np.int32))
        >>> tracks.left_out("phonemes", np.array([True, False])).phonemes.tolist()
        [[0, 0], [2, 2]]
        """
        left_out = self.map(np.copy)
        if condition == "melody" and left_out.melody is not None:
            left_out.melody[items] = 0, UNKNOWN
        if condition == "phonemes" and left_out.phonemes is not None:
            left_out.phonemes[items] = ABSENT
        return left_out

    def span(self, first: int, last: int) -> Self:
        """Frames [first, last) of batched tracks; outside of them nothing is known.

        >>> tracks = FrameTracks(melody=np.ones((1, 2, 2), np.float32), phonemes=np.array([[3, 1]], np.int32))
        >>> tracks.span(-1, 1).phonemes.tolist(), tracks.span(1, 3).melody[..., 1].tolist()
        ([[0, 3]], [[1.0, -1.0]])
        """

        def taken(track: np.ndarray, unknown: object) -> np.ndarray:
            frames = track.shape[1]
            part = np.empty((len(track), last - first, *track.shape[2:]), track.dtype)
            part[:] = unknown
            begin, end = min(max(first, 0), frames), min(max(last, 0), frames)
            part[:, begin - first : end - first] = track[:, begin:end]
            return part

        melody, phonemes = self
        return type(self)(
            None if melody is None else taken(melody, (0, UNKNOWN)),
            None if phonemes is None else taken(phonemes, ABSENT),
        )

    @classmethod
    def joined(cls, tracks: Sequence["FrameTracks"], join: Callable[[list[Any]], np.ndarray]) -> Self:
        """Several tracks as one, by ``np.stack``, ``np.concatenate`` or the like."""
        columns = zip(*tracks, strict=True)
        return cls(*(None if column[0] is None else join(list(column)) for column in columns))


@dataclass(frozen=True)
class Vocabulary:
    """The phonemes of a corpus, sorted by name, and how they are sung there; phoneme ``i`` has the index ``i + 1``.

    >>> vocabulary = Vocabulary("phonemes", ("a", "t"), seconds=(0.19, 0.08), voiced=(0.91, 0.4))
    >>> vocabulary.index("t"), vocabulary.size
    (2, 3)
    """

    unit: Literal["phonemes", "characters"] = "phonemes"
    """what the names are; characters are letters of words, spread evenly over a line"""
    names: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    """median duration of each"""
    voiced: tuple[float, ...] = ()
    """share of the frames of each that are voiced"""

    @property
    def size(self) -> int:
        """How many indices there are: one more than names, since 0 is none of them."""
        return len(self.names) + 1

    def index(self, name: str) -> int:
        """The index of a phoneme; :class:`KeyError` for one that is not in the corpus."""
        try:
            return self.names.index(name) + 1
        except ValueError:
            raise KeyError(name) from None


@dataclass(frozen=True)
class TrackSpec:
    """How the tracks of a file were made; kept in its metadata."""

    sample_rate: int
    hop_length: int
    conditions: tuple[Condition, ...]
    vocabulary: Vocabulary = Vocabulary()
    range_hz: tuple[float, float] | None = None
    """pitches between which 99.8 % of the voiced frames lie; None if nothing is voiced"""
    version: Literal[1] = 1

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


_SPEC = TypeAdapter(TrackSpec)


class _Statistics:
    """How often each phoneme is voiced, and the range of the voice."""

    def __init__(self, phonemes: int) -> None:
        self._frames, self._voiced = np.zeros((2, phonemes), np.int64)
        self._pitches = np.zeros(0, np.int64)  # voiced frames by pitch, in bins from 1 Hz upwards

    def update(self, melody: np.ndarray, phonemes: np.ndarray | None) -> None:
        voiced = melody[:, 1] > 0
        bins = np.maximum(melody[voiced, 0] / np.log(2) * 1200 / BIN_CENTS, 0).astype(int)
        counts = np.bincount(bins, minlength=len(self._pitches))
        counts[: len(self._pitches)] += self._pitches
        self._pitches = counts
        if phonemes is not None:
            size = len(self._frames)
            self._frames += np.bincount(phonemes, minlength=size)
            self._voiced += np.bincount(phonemes[voiced], minlength=size)

    def voiced(self) -> tuple[float, ...]:
        shares = self._voiced[1:] / np.maximum(self._frames[1:], 1)
        return tuple(shares.round(3).tolist())

    def range_hz(self) -> tuple[float, float] | None:
        total = self._pitches.sum()
        if not total:
            return None
        reached = np.searchsorted(np.cumsum(self._pitches), total * np.array(RANGE_PERCENT) / 100)
        low, high = (2 ** ((reached + 0.5) * BIN_CENTS / 1200)).round(1).tolist()
        return low, high


def _schema(conditions: Sequence[Condition]) -> pa.Schema:
    columns: dict[Condition, list[tuple[str, pa.DataType]]] = {
        "melody": [("log_pitch", pa.list_(pa.float32())), ("voicing", pa.list_(pa.float32()))],
        "phonemes": [("phonemes", pa.list_(pa.int32()))],
    }
    chosen = [pa.field(*column) for condition in CONDITIONS if condition in conditions for column in columns[condition]]
    fixed = [pa.field("recording", pa.string(), nullable=False), pa.field("frames", pa.int32(), nullable=False)]
    return pa.schema([*fixed, *chosen])


def write_tracks(
    folder: Path, spec: TrackSpec, tracks: Iterable[tuple[str, np.ndarray, np.ndarray | None]]
) -> TrackSpec:
    """Write the tracks of recordings, in their order, into a folder.

    Parameters
    ----------
    spec
        Its conditions are the columns that are written. The share of voiced frames and the range are filled in here.
    tracks
        For each recording its name, its melody (frames, 2) and its phonemes (frames,), or None if it has no labels;
        see :class:`FrameTracks`. All melodies count for the statistics, written or not.

    Returns
    -------
    The settings in the file.

    >>> from tempfile import TemporaryDirectory
    >>> vocabulary = Vocabulary("phonemes", ("a",), seconds=(0.2,))
    >>> melody = np.array([[5.39, 1], [5.39, 0]], np.float32)
    >>> with TemporaryDirectory() as folder:
    ...     spec = TrackSpec(24000, 512, ("melody", "phonemes"), vocabulary)
    ...     written = write_tracks(Path(folder), spec, [("song.wav", melody, np.array([1, 0], np.int32))])
    ...     Tracks(Path(folder)).window("song.wav", first=0, frames=2).phonemes.tolist(), written.range_hz
    ([1, 0], (219.7, 219.7))
    """
    schema, statistics = _schema(spec.conditions), _Statistics(spec.vocabulary.size)
    columns: dict[str, list[Any]] = {field.name: [] for field in schema}
    with (
        atomic_write(folder / FILE) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for recording, melody, phonemes in tracks:
            statistics.update(melody, phonemes)
            row = (recording, len(melody), melody[:, 0], melody[:, 1], _with_nulls(phonemes))
            for name, value in zip(("recording", "frames", "log_pitch", "voicing", "phonemes"), row, strict=True):
                if name in columns:
                    columns[name].append(value)
            if sum(columns["frames"]) >= GROUP_FRAMES:
                _flush(writer, schema, columns)
        _flush(writer, schema, columns)
        vocabulary = replace(spec.vocabulary, voiced=statistics.voiced())
        spec = replace(spec, vocabulary=vocabulary, range_hz=statistics.range_hz())
        writer.add_key_value_metadata({METADATA_KEY: _SPEC.dump_json(spec)})
    return spec


def _flush(writer: pq.ParquetWriter, schema: pa.Schema, columns: dict[str, list[Any]]) -> None:
    """Write what is buffered as a row group."""
    if columns["frames"]:
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        writer.write_batch(pa.record_batch(arrays, schema=schema))
        for column in columns.values():
            column.clear()


def _with_nulls(phonemes: np.ndarray | None) -> pa.Array | None:
    return None if phonemes is None else pa.array(phonemes.astype(np.int32), mask=phonemes == ABSENT)


class Tracks:
    """The tracks of a folder, read by recording.

    Parameters
    ----------
    conditions
        Which of the tracks are wanted.
    lookahead
        Frames after a window that belong to it: a model may know what is to be sung next.

    Raises
    ------
    TracksError
        The file is missing, damaged or of another kind, or has no track of a wanted condition.
    """

    def __init__(self, folder: Path, conditions: Sequence[Condition] = CONDITIONS, lookahead: int = 0) -> None:
        self.path, self.conditions, self.lookahead = folder / FILE, tuple(conditions), lookahead
        file = self._opened()
        try:
            self.spec = _SPEC.validate_json((file.metadata.metadata or {})[METADATA_KEY])
        except (KeyError, ValidationError) as error:
            raise TracksError(
                f"{self.path}: not a file of tracks of this version; run the stage tracks again"
            ) from error
        if missing := sorted(set(conditions) - set(self.spec.conditions)):
            raise TracksError(f"{self.path}: has no {missing[0]}; run the stage tracks again")
        if not file.schema_arrow.equals(_schema(self.spec.conditions)):
            raise TracksError(f"{self.path}: its columns are not those of tracks: {', '.join(file.schema_arrow.names)}")
        self._rows: dict[str, tuple[int, int]] = {}
        for group in range(file.num_row_groups):
            names = self._read(group, ["recording"])["recording"].to_pylist()
            self._rows |= {name: (group, row) for row, name in enumerate(names)}
        # Of this instance alone, which dies with it.
        self._group = lru_cache(HELD_GROUPS)(self._read)

    def check(self, mel: MelSpec) -> None:
        """Raise :class:`TracksError` if spectrograms have other frames than the tracks."""
        if (mel.sample_rate, mel.hop_length) != (self.spec.sample_rate, self.spec.hop_length):
            raise TracksError(
                f"{self.path}: frames every {self.spec.hop_length} samples at {self.spec.sample_rate} Hz, but the "
                f"spectrograms have them every {mel.hop_length} at {mel.sample_rate} Hz; run the stage tracks again"
            )

    def window(self, recording: str, first: int, frames: int) -> FrameTracks:
        """Tracks of the frames [first, first + frames + lookahead) of a recording; see :class:`FrameTracks`.

        Raises
        ------
        TracksError
            There are none of this recording, or they cannot be decoded.
        """
        try:
            group, row = self._rows[recording]
        except KeyError:
            raise TracksError(f"{self.path}: has no tracks of {recording!r}; run the stage tracks again") from None
        table = self._group(group)
        frames_of = table["frames"][row].as_py()
        melody = phonemes = None
        if "melody" in self.conditions:
            columns = [table[name][row].values.to_numpy() for name in ("log_pitch", "voicing")]
            melody = np.stack(columns, axis=-1)
        if "phonemes" in self.conditions:
            labelled = table["phonemes"][row].values
            none = np.full(frames_of, ABSENT, np.int32)
            phonemes = none if labelled is None else labelled.fill_null(ABSENT).to_numpy().astype(np.int32)
        return FrameTracks(melody, phonemes).window(first, frames + self.lookahead)

    def _opened(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, page_checksum_verification=True)
        except FileNotFoundError as error:
            raise TracksError(f"{self.path}: no such file; the stage tracks makes it") from error
        except (pa.ArrowException, OSError) as error:
            raise TracksError(f"{self.path}: damaged or not a Parquet file: {str(error).splitlines()[0]}") from error

    def _read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            with self._opened() as file:
                return file.read_row_group(group, columns).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise TracksError(f"{self.path}: damaged: {str(error).splitlines()[0]}") from error
