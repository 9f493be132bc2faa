"""Slices of log-mel spectrograms in a folder of Parquet files (shards), written and read as streams.

Each row is one slice: ``recording``, the relative path of its recording; ``singer``, empty where nobody is named;
``start_frame``, the slice's first frame in the recording; and ``mel``, float32 (frames, bands) in row-major order. All
shards of a folder hold the same :class:`ShardSpec`.

``index.json`` beside them has the SHA-256 and the number of slices of each shard, and a shard is only opened if its
bytes have that SHA-256. Parquet's own checksums do not cover its footer, where one flipped bit can crash pyarrow.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from melnet.audio.mel import MelSpec
from melnet.data.atomic import atomic_write, write_json
from melnet.errors import MelnetError

METADATA_KEY = b"melnet"
INDEX = "index.json"
# A row group is what is buffered, read at once and joined: large enough to read fast.
GROUP_ROWS = 512
GROUP_BYTES = 2**22


class ShardError(MelnetError):
    """A shard that cannot be used, or a slice that cannot be stored; the message names the file or the recording."""


@dataclass(frozen=True)
class ShardSpec:
    """How the slices of a folder were made; kept in the metadata of each shard.

    >>> ShardSpec(frames=50, mel=MelSpec()).bands
    32
    """

    frames: int
    """frames of a slice"""
    mel: MelSpec
    version: Literal[3] = 3

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    @property
    def bands(self) -> int:
        return self.mel.n_mels


@dataclass(frozen=True)
class ShardSum:
    """The number of slices of a shard, and the SHA-256 of its file in hexadecimal digits."""

    rows: int
    sha256: str


_SPEC = TypeAdapter(ShardSpec)
_INDEX = TypeAdapter(dict[Literal["shards"], Annotated[dict[str, ShardSum], Field(min_length=1)]])


class Group(NamedTuple):
    """A row group: the unit of random access."""

    shard: int
    row_group: int
    rows: int


def _schema(spec: ShardSpec) -> pa.Schema:
    values = pa.list_(pa.field("element", pa.float32(), nullable=False), spec.frames * spec.bands)
    fields = [("recording", pa.string()), ("singer", pa.string()), ("start_frame", pa.int32()), ("mel", values)]
    metadata = {METADATA_KEY: _SPEC.dump_json(spec)}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata)


class ShardWriter:
    """Writes slices to ``part-00000.parquet``, ``part-00001.parquet``, ... in a folder; a context manager.

    Each shard holds ``shard_rows`` slices, the last one the rest, and appears complete or not at all. At most one row
    group is buffered. Equal slices in equal order give equal bytes. Without any slice there is one empty shard. The
    index comes last: without it the shards are incomplete.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with ShardWriter(Path(folder), ShardSpec(50, MelSpec()), shard_rows=4096) as writer:
    ...         writer.write("song.wav", np.array([0, 50]), np.zeros((2, 50, 32), np.float32))
    ...     len(Shards(Path(folder)))
    2
    """

    def __init__(self, folder: Path, spec: ShardSpec, shard_rows: int) -> None:
        self.folder, self.spec, self.shard_rows = folder, spec, shard_rows
        self.rows = 0  # slices taken so far, in all shards
        row_bytes = 4 * spec.frames * spec.bands
        self._group_rows = min(GROUP_ROWS, max(1, GROUP_BYTES // row_bytes))
        self._schema = _schema(spec)
        self._buffer = self._schema.empty_table()
        self._shard = ExitStack()
        self._parquet: pq.ParquetWriter | None = None
        self._shards = self._shard_filled = 0
        self._sums: dict[str, ShardSum] = {}

    def write(self, recording: str, start_frames: np.ndarray, mels: np.ndarray, singer: str = "") -> None:
        """Append slices (n, frames, bands) that begin at the frames ``start_frames`` (n,) of one recording.

        Raises
        ------
        ShardError
            A slice has another shape, or holds NaN or infinity.
        """
        count = len(start_frames)
        if mels.shape != (count, self.spec.frames, self.spec.bands):
            expected = f"({count}, {self.spec.frames}, {self.spec.bands})"
            raise ShardError(f"{recording}: slices of shape {mels.shape}, expected {expected}")
        bad = ~np.isfinite(mels).all(axis=(1, 2))
        if bad.any():
            raise ShardError(f"{recording}: the slice at frame {start_frames[np.argmax(bad)]} is not finite")
        values = pa.FixedSizeListArray.from_arrays(
            pa.array(mels.reshape(-1), pa.float32()), type=self._schema.field("mel").type
        )
        columns = [pa.repeat(recording, count), pa.repeat(singer, count), pa.array(start_frames, pa.int32()), values]
        self._buffer = pa.concat_tables([self._buffer, pa.table(columns, schema=self._schema)])
        self.rows += count
        while len(self._buffer) >= (wanted := min(self._group_rows, self.shard_rows - self._shard_filled)):
            self._flush(wanted)
            if self._shard_filled == self.shard_rows:
                self._close_shard()

    def _flush(self, rows: int) -> None:
        parquet = self._parquet or self._open_shard()
        parquet.write_table(self._buffer.slice(0, rows).combine_chunks())
        self._buffer = self._buffer.slice(rows)
        self._shard_filled += rows

    def _open_shard(self) -> pq.ParquetWriter:
        path = self._shard.enter_context(atomic_write(self.folder / f"part-{self._shards:05d}.parquet"))
        self._parquet = self._shard.enter_context(
            pq.ParquetWriter(
                path,
                self._schema,
                compression="zstd",
                use_dictionary=["recording", "singer"],  # values of a spectrogram hardly repeat
                use_byte_stream_split=["mel.list.element"],  # like bytes of neighbouring floats compress better
                write_statistics=["recording", "singer", "start_frame"],
                write_page_checksum=True,
            )
        )
        return self._parquet

    def _close_shard(self) -> None:
        self._shard.close()
        self._parquet = None
        path = self.folder / f"part-{self._shards:05d}.parquet"
        self._sums[path.name] = ShardSum(rows=self._shard_filled, sha256=_sha256(path))
        self._shards += 1
        self._shard_filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._shard.__exit__(kind, error, traceback)  # removes the unfinished shard
            return
        with self._shard:
            if len(self._buffer) or not self.rows:
                self._flush(len(self._buffer))
            if self._parquet:
                self._close_shard()
        write_json(self.folder / INDEX, {"shards": {name: asdict(found) for name, found in self._sums.items()}})


class Shards:
    """The slices of a folder, read by row group in any order.

    The SHA-256 of every shard is checked first. Slices are only read when they are asked for. No file stays open, so
    an instance may be used from several threads.

    Raises
    ------
    ShardError
        The folder holds no shard, one is missing or damaged, or they are of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("part-*.parquet"))
        if not self.paths:
            raise ShardError(f"{folder}: no shards (part-*.parquet) here")
        sums = _sums(folder, self.paths)
        self.groups: list[Group] = []
        for shard, path in enumerate(self.paths):
            # A shard with this digest is as ShardWriter wrote it, so its content needs no other check.
            if _sha256(path) != sums[path.name].sha256:
                raise ShardError(f"{path}: damaged: its bytes are not those whose SHA-256 is in {INDEX}")
            with _opened(path) as file:
                self.spec = _spec(path, file)
                counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self.groups += [Group(shard, row_group, rows) for row_group, rows in enumerate(counts)]

    def __len__(self) -> int:
        """Number of slices."""
        return sum(group.rows for group in self.groups)

    def read_group(self, index: int) -> np.ndarray:
        """Slices of row group ``index`` of :attr:`groups`; float32 (rows, frames, bands).

        Raises
        ------
        ShardError
            The checksum of what is read does not fit, or it cannot be decoded.
        """
        mels = self._column(index, "mel").flatten().to_numpy()
        return mels.reshape(-1, self.spec.frames, self.spec.bands)

    def read_singers(self, index: int) -> list[str]:
        """Who sings each slice of row group ``index``; empty where nobody is named."""
        return self._column(index, "singer").to_pylist()

    def read_all(self) -> np.ndarray:
        """All slices, in the order in which they were written; float32 (n, frames, bands)."""
        mels = np.empty((len(self), self.spec.frames, self.spec.bands), np.float32)
        done = 0
        for index, group in enumerate(self.groups):
            mels[done : done + group.rows] = self.read_group(index)
            done += group.rows
        return mels

    def positions(self) -> Iterator[tuple[str, int]]:
        """Recording and first frame of each slice, in the order in which they were written."""
        for index in range(len(self.groups)):
            recordings = self._column(index, "recording").to_pylist()
            yield from zip(recordings, self._column(index, "start_frame").to_pylist(), strict=True)

    def _column(self, index: int, name: str) -> pa.Array:
        group = self.groups[index]
        path = self.paths[group.shard]
        with _opened(path) as file:
            return file.read_row_group(group.row_group, columns=[name]).column(name).combine_chunks()


class HeldShards(Shards):
    """Shards whose row groups stay in memory once they are read; of more than ``max_frames`` frames, the last ones.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with ShardWriter(Path(folder), ShardSpec(50, MelSpec()), shard_rows=4096) as writer:
    ...         writer.write("song.wav", np.array([0]), np.zeros((1, 50, 32), np.float32))
    ...     held = HeldShards(Shards(Path(folder)), max_frames=1000)
    ...     read = held.read_group(0)
    >>> held.read_group(0) is read
    True
    """

    def __init__(self, shards: Shards, max_frames: int) -> None:
        self.paths, self.spec, self.groups = shards.paths, shards.spec, shards.groups
        all_fit = len(shards) * shards.spec.frames <= max_frames
        largest = max((group.rows for group in shards.groups), default=1)
        self._read_group = lru_cache(None if all_fit else max_frames // (largest * shards.spec.frames))(
            shards.read_group
        )

    def read_group(self, index: int) -> np.ndarray:
        return self._read_group(index)


def _sums(folder: Path, paths: list[Path]) -> dict[str, ShardSum]:
    """The index of a folder, which must name exactly these shards."""
    path = folder / INDEX
    try:
        sums = _INDEX.validate_json(path.read_bytes())["shards"]
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}; the shards are incomplete, slice again") from error
    except (ValidationError, KeyError) as error:
        raise ShardError(f"{path}: damaged or no index of shards: {str(error).splitlines()[0]}") from error
    for name in sorted(sums.keys() ^ {path.name for path in paths}):
        raise ShardError(f"{folder / name}: missing" if name in sums else f"{folder / name}: not in {INDEX}")
    return sums


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; an error of reading becomes a :class:`ShardError`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path}: damaged or not a Parquet file: {str(error).splitlines()[0]}") from error


def _spec(path: Path, file: pq.ParquetFile) -> ShardSpec:
    try:
        return _SPEC.validate_json(file.metadata.metadata[METADATA_KEY])
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ShardError(f"{path}: settings not understood: {key}: {problem['msg']}; slice again") from error
