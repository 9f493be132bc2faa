"""Generated spectrograms in one Parquet file, ``spectrograms.parquet``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melnet.audio.mel import MelSpec
from melnet.data.atomic import atomic_write
from melnet.errors import MelnetError

METADATA_KEY = b"melnet"


@dataclass(frozen=True)
class Samples:
    """Generated spectrograms, all of one length.

    >>> from tempfile import TemporaryDirectory
    >>> samples = Samples(["sample-00"], [""], np.zeros((1, 200, 32), np.float32), MelSpec())
    >>> with TemporaryDirectory() as folder:
    ...     samples.write(Path(folder, "spectrograms.parquet"))
    ...     Samples.read(Path(folder, "spectrograms.parquet")).log_mels.shape
    (1, 200, 32)
    """

    names: list[str]
    """of the samples, which also name their audio files"""
    singers: list[str]
    """of each sample, empty where the model knows none"""
    log_mels: np.ndarray
    """float32 (samples, frames, bands), natural log of mel power"""
    mel: MelSpec

    def write(self, path: Path) -> None:
        """Write the file atomically; equal samples give equal bytes."""
        _, frames, bands = self.log_mels.shape
        values = pa.FixedSizeListArray.from_arrays(pa.array(self.log_mels.reshape(-1)), frames * bands)
        about = {METADATA_KEY: json.dumps({"frames": frames, "mel": asdict(self.mel)})}
        table = pa.table({"sample": self.names, "singer": self.singers, "mel": values}).replace_schema_metadata(about)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> "Samples":
        """Read the file.

        Raises
        ------
        MelnetError
            It is missing, damaged or not a file of samples; the message names it.
        """
        try:
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[METADATA_KEY])
            mel = MelSpec(**about["mel"])
            values = table["mel"].combine_chunks().flatten().to_numpy()
            log_mels = values.reshape(len(table), about["frames"], mel.n_mels)
            return cls(table["sample"].to_pylist(), table["singer"].to_pylist(), log_mels, mel)
        except FileNotFoundError as error:
            raise MelnetError(f"{path}: no such file; the stage generate makes it") from error
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise MelnetError(f"{path}: damaged or not a file of samples: {str(error).splitlines()[0]}") from error
