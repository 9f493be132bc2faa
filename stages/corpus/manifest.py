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
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # below corpus.path
        pa.field("singer", pa.string()),  # first folder of the path; null for a file outside any folder
        pa.field("output", pa.string()),  # below data/24k; null if rejected, like every column after the reason
        pa.field("status", pa.string(), nullable=False),  # ok or rejected
        pa.field("reason", pa.string()),  # null if ok
        pa.field("source_rate", pa.int32()),  # Hz
        pa.field("channels", pa.int32()),
        pa.field("seconds_in", pa.float64()),
        pa.field("seconds_out", pa.float64()),
        pa.field("peak", pa.float64()),  # of the resampled signal before the gain, full scale is 1
        pa.field("rms", pa.float64()),  # likewise
        pa.field("gain", pa.float64()),  # factor that keeps the FLAC from clipping; 1 for nearly all
    ]
)
Row = dict[str, Any]  # the columns of SCHEMA; one that is left out is null


def write_manifest(folder: Path, rows: list[Row]) -> None:
    """Write the manifest of ``folder``."""
    # Table.from_pylist loads pandas, which takes a fifth of a second; Arrow's JSON reader does not.
    lines = "\n".join(map(json.dumps, rows)).encode()
    options = pa.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error", newlines_in_values=False)
    table = pa.json.read_json(io.BytesIO(lines), parse_options=options)
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
