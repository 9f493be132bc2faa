"""The pitch tracks of a corpus in one Parquet file, ``pitch.parquet``: a row per recording."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melnet.audio.files import read_mono
from melnet.audio.pitch import track_pitch
from melnet.data.atomic import atomic_write
from melnet.errors import MelnetError

FILE = "pitch.parquet"
METADATA = {b"melnet": b'{"format": 1}'}
SCHEMA = pa.schema([("recording", pa.string()), ("pitch", pa.list_(pa.float32()))], METADATA)


class PitchTracksError(MelnetError):
    """Pitch tracks cannot be read; the message names the file."""


def write_pitch_tracks(folder: Path, tracks: Iterable[tuple[str, np.ndarray]]) -> float:
    """Write the tracks (frames,) of recordings by their names, one at a time; see :mod:`melnet.audio.pitch`.

    Returns
    -------
    Share of the frames that are voiced.
    """
    frames = voiced = 0
    with atomic_write(folder / FILE) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for recording, track in tracks:
            columns = [pa.array([recording]), pa.array([track.astype(np.float32)], SCHEMA.field("pitch").type)]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            frames, voiced = frames + len(track), voiced + int(np.count_nonzero(track))
    return voiced / max(1, frames)


def read_pitch_tracks(folder: Path) -> dict[str, np.ndarray]:
    """The tracks by the names of their recordings.

    Raises
    ------
    PitchTracksError
        The file is missing, damaged or of another kind.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     share = write_pitch_tracks(Path(folder), [("song.wav", np.array([220.0, 0.0]))])
    ...     read_pitch_tracks(Path(folder))["song.wav"].tolist()
    [220.0, 0.0]
    """
    path = folder / FILE
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError as error:
        raise PitchTracksError(f"{path}: no such file; the stage pitch makes it") from error
    except (pa.ArrowException, OSError) as error:
        raise PitchTracksError(f"{path}: damaged or not a Parquet file: {str(error).splitlines()[0]}") from error
    if not table.schema.equals(SCHEMA) or table.schema.metadata != SCHEMA.metadata:
        raise PitchTracksError(f"{path}: not a file of pitch tracks of this version; run the stage pitch again")
    return {
        name: row.values.to_numpy() for name, row in zip(table["recording"].to_pylist(), table["pitch"], strict=True)
    }


class PitchTask(NamedTuple):
    """A recording whose pitch is to be tracked."""

    file: Path
    samples: int
    sample_rate: int


def track_file(task: PitchTask) -> np.ndarray:
    """Pitch track (frames,) of a mono file; raises UnusableAudio, which names the file, if it cannot be read."""
    return track_pitch(partial(read_mono, task.file), task.samples, task.sample_rate)
