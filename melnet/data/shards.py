"""Slices of log-mel spectrograms in a folder of Parquet files (shards), written and read as streams.

Each row is one slice: ``recording``, the relative path of the recording that it comes from; ``singer``, who sings it,
empty where nobody is named; ``start_frame``, its place in the recording; and ``mel``, float32 (frames, bands) in
row-major order. All shards of a folder hold the same :class:`Settings`.

``index.json`` beside them has the SHA-256 and the number of slices of each. Parquet's own checksums do not cover its
footer, where a single flipped bit can make pyarrow end the process: no shard is opened that is not as it was written.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from melnet.data.atomic import written
from stages.parameters import Mel, Section

METADATA_KEY = b"melnet"
INDEX = "index.json"
# A row group is what is buffered, read at once and shuffled within: large enough to read fast.
GROUP_ROWS = 512
GROUP_BYTES = 2**22


class ShardError(ValueError):
    """A shard that cannot be used, or a slice that cannot be stored; the message names the file or the recording."""


class Settings(Section):
    """How the slices of a folder were made; kept in the metadata of each shard."""

    version: Literal[2] = 2
    frames: int = Field(ge=1)
    sample_rate: int = Field(ge=1)
    mel: Mel

    @property
    def bands(self) -> int:
        return self.mel.n_mels


class Sum(Section):
    """What a shard is checked by before it is opened."""

    rows: int = Field(ge=0)
    sha256: str


class Index(Section):
    """The shards of a folder, by name."""

    shards: dict[str, Sum] = Field(min_length=1)


class Group(NamedTuple):
    """A row group: the unit of random access."""

    shard: int
    row_group: int
    rows: int


def _schema(settings: Settings) -> pa.Schema:
    values = pa.list_(pa.field("element", pa.float32(), nullable=False), settings.frames * settings.bands)
    fields = [("recording", pa.string()), ("singer", pa.string()), ("start_frame", pa.int32()), ("mel", values)]
    metadata = {METADATA_KEY: settings.model_dump_json()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata)


class ShardWriter:
    """Writes slices to ``part-00000.parquet``, ``part-00001.parquet``, ... in a folder; a context manager.

    Each shard holds ``shard_rows`` slices, the last one the rest, and appears complete or not at all. At most one row
    group is buffered. Equal slices in equal order give equal bytes. Without any slice there is one empty shard. The
    index comes last: without it the shards are incomplete.
    """

    def __init__(self, folder: Path, settings: Settings, shard_rows: int) -> None:
        self.folder, self.settings, self.shard_rows = folder, settings, shard_rows
        self.rows = 0  # slices taken so far, in all shards
        row_bytes = 4 * settings.frames * settings.bands
        self._group_rows = min(GROUP_ROWS, max(1, GROUP_BYTES // row_bytes))
        self._schema = _schema(settings)
        self._mels = np.empty((self._group_rows, settings.frames * settings.bands), np.float32)
        self._recordings: list[str] = []
        self._singers: list[str] = []
        self._starts: list[int] = []
        self._shard = ExitStack()
        self._parquet: pq.ParquetWriter | None = None
        self._shards = self._shard_filled = 0
        self._sums: dict[str, Sum] = {}

    def write(self, recording: str, start_frames: np.ndarray, mels: np.ndarray, singer: str = "") -> None:
        """Append slices (n, frames, bands) that begin at the frames ``start_frames`` (n,) of one recording.

        Raises
        ------
        ShardError
            A slice has another shape, or holds NaN or infinity.
        """
        if mels.shape != (len(start_frames), self.settings.frames, self.settings.bands):
            expected = f"({len(start_frames)}, {self.settings.frames}, {self.settings.bands})"
            raise ShardError(f"{recording}: slices of shape {mels.shape}, expected {expected}")
        bad = ~np.isfinite(mels).all(axis=(1, 2))
        if bad.any():
            raise ShardError(f"{recording}: the slice at frame {start_frames[np.argmax(bad)]} is not finite")
        for start, mel in zip(start_frames, mels, strict=True):
            self._mels[len(self._starts)] = mel.reshape(-1)
            self._recordings.append(recording)
            self._singers.append(singer)
            self._starts.append(int(start))
            self.rows += 1
            shard_full = self._shard_filled + len(self._starts) == self.shard_rows
            if shard_full or len(self._starts) == self._group_rows:
                self._flush()
            if shard_full:
                self._close_shard()

    def _flush(self) -> None:
        parquet = self._parquet or self._open_shard()
        rows = len(self._starts)
        mels = pa.FixedSizeListArray.from_arrays(
            pa.array(self._mels[:rows].reshape(-1)), type=self._schema.field("mel").type
        )
        names = [pa.array(column, pa.string()) for column in (self._recordings, self._singers)]
        columns = [*names, pa.array(self._starts, pa.int32()), mels]
        parquet.write_batch(pa.record_batch(columns, schema=self._schema))
        self._shard_filled += rows
        self._recordings.clear()
        self._singers.clear()
        self._starts.clear()

    def _open_shard(self) -> pq.ParquetWriter:
        path = self._shard.enter_context(written(self.folder / f"part-{self._shards:05d}.parquet"))
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
        self._sums[path.name] = Sum(rows=self._shard_filled, sha256=_sha256(path))
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
            if self._starts or not self.rows:
                self._flush()
            if self._parquet:
                self._close_shard()
        with written(self.folder / INDEX) as temporary:
            content = Index(shards=self._sums).model_dump()
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Shards:
    """The slices of a folder, read by row group in any order.

    Every shard is compared with the index first, read in pieces; afterwards nothing but the footers is read before it
    is asked for. No file stays open, so an instance may be used from several threads.

    Raises
    ------
    ShardError
        The folder holds no shard, one is missing, damaged or none, or two were made with different settings.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("part-*.parquet"))
        if not self.paths:
            raise ShardError(f"{folder}: no shards (part-*.parquet) here")
        sums = _sums(folder, self.paths)
        self.groups: list[Group] = []
        for shard, path in enumerate(self.paths):
            if _sha256(path) != sums[path.name].sha256:
                raise ShardError(f"{path}: damaged: its bytes are not those whose SHA-256 is in {INDEX}")
            with _opened(path) as file:
                settings = _settings(path, file)
                counts = _counts(path, file, settings)
            if sum(counts) != sums[path.name].rows:
                raise ShardError(f"{path}: holds {sum(counts)} slices, but {INDEX} says {sums[path.name].rows}")
            if shard == 0:
                self.settings = settings
            elif settings != self.settings:
                raise ShardError(f"{path}: made with {settings!r}, but {self.paths[0].name} with {self.settings!r}")
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
        return mels.reshape(-1, self.settings.frames, self.settings.bands)

    def read_singers(self, index: int) -> list[str]:
        """Who sings each slice of row group ``index``; empty where nobody is named."""
        return self._column(index, "singer").to_pylist()

    def read_all(self) -> np.ndarray:
        """All slices, in the order in which they were written; float32 (n, frames, bands)."""
        mels = np.empty((len(self), self.settings.frames, self.settings.bands), np.float32)
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
            column = file.read_row_group(group.row_group, columns=[name]).column(name).combine_chunks()
        if len(column) != group.rows:
            raise ShardError(f"{path}: row group {group.row_group} holds {len(column)} slices, not {group.rows}")
        return column


def _sums(folder: Path, paths: list[Path]) -> dict[str, Sum]:
    """The index, which must name exactly these shards."""
    path = folder / INDEX
    try:
        sums = Index.model_validate_json(path.read_bytes()).shards
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}; the shards are incomplete, slice again") from error
    except ValidationError as error:
        raise ShardError(f"{path}: damaged or no index of shards: {error.errors()[0]['msg']}") from error
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
    """A Parquet file; what prevents reading it becomes :class:`ShardError`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path}: damaged or not a Parquet file: {str(error).splitlines()[0]}") from error


def _counts(path: Path, file: pq.ParquetFile, settings: Settings) -> list[int]:
    """Slices of each row group. Parquet's checksums cover the pages only: the counts of the footer check each other."""
    footer = file.metadata
    groups = [footer.row_group(i) for i in range(file.num_row_groups)]
    expected = [1, 1, 1, settings.frames * settings.bands]  # values per slice of each column
    sound = sum(group.num_rows for group in groups) == footer.num_rows and all(
        group.column(column).num_values == group.num_rows * values
        for group in groups
        for column, values in enumerate(expected)
    )
    if not sound:
        raise ShardError(f"{path}: damaged: the counts of slices in its footer contradict each other")
    return [group.num_rows for group in groups]


def _settings(path: Path, file: pq.ParquetFile) -> Settings:
    content = (file.metadata.metadata or {}).get(METADATA_KEY)
    if content is None:
        raise ShardError(f"{path}: a Parquet file, but no shard of ours (no metadata {METADATA_KEY.decode()!r})")
    try:
        settings = Settings.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ShardError(f"{path}: settings not understood: {key}: {problem['msg']}") from error
    if not file.schema_arrow.equals(_schema(settings)):
        raise ShardError(f"{path}: its columns are not those of a shard: {', '.join(file.schema_arrow.names)}")
    return settings
