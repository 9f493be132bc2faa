"""The manifest of the converted corpus: one row for every file that was found, used or not."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from stages.command import StageError

MANIFEST = "manifest.parquet"  # in the folder of the FLAC files
PAUSE = pa.struct([pa.field("start", pa.float64()), pa.field("seconds", pa.float64())])
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # below corpus.path
        pa.field("singer", pa.string()),  # first folder of the path; null for a file outside any folder
        pa.field("output", pa.string()),  # below data/24k; null unless ok, like every column after the reason
        pa.field("status", pa.string(), nullable=False),  # ok, rejected or duplicate
        pa.field("reason", pa.string()),  # null if ok
        pa.field("source_rate", pa.int32()),  # Hz
        pa.field("channels", pa.int32()),
        pa.field("seconds_in", pa.float64()),
        pa.field("seconds_out", pa.float64()),
        pa.field("seconds_removed", pa.float64()),  # from pauses
        pa.field("pauses", pa.list_(PAUSE)),  # what was removed, in the time of the resampled signal
        pa.field("peak", pa.float64()),  # of the resampled signal before cuts and gain, full scale is 1
        pa.field("rms", pa.float64()),  # likewise
        pa.field("gain", pa.float64()),  # factor that keeps the FLAC from clipping; 1 for nearly all
    ]
)
Row = dict[str, Any]  # the columns of SCHEMA; one that is left out is null


def write_manifest(folder: Path, rows: list[Row]) -> None:
    """Write the manifest of ``folder``."""
    # Table.from_pylist loads pandas, which takes a fifth of a second; Arrow's JSON reader does not.
    lines = [json.dumps(row).encode() for row in rows]
    parsing = pa.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error", newlines_in_values=False)
    reading = pa.json.ReadOptions(block_size=2**20 + max(map(len, lines), default=0))  # a block must hold a whole line
    table = pa.json.read_json(io.BytesIO(b"\n".join(lines)), read_options=reading, parse_options=parsing)
    pq.write_table(table.combine_chunks().cast(SCHEMA), folder / MANIFEST)  # the reader makes every column nullable


def read_manifest(folder: Path) -> list[Row]:
    """All rows with every column; :class:`StageError` if the manifest is missing, unreadable or has other columns."""
    path = folder / MANIFEST
    try:
        table = pq.ParquetFile(path).read()  # read_table loads pandas
    except FileNotFoundError as error:
        raise StageError(f"{path} does not exist; the stage downsample makes it") from error
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not table.schema.equals(SCHEMA):
        raise StageError(f"{path} has other columns than the stage downsample writes: {table.schema.names}")
    rows: list[Row] = table.to_pylist()
    return rows
