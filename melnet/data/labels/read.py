"""Label files of any format, told apart by their suffix."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from melnet.data.labels.htk import read_htk
from melnet.data.labels.label import Labels
from melnet.data.labels.lyrics import read_lrc, read_srt
from melnet.data.labels.praat import read_textgrid

Reader: TypeAlias = Callable[[Path, float | None], Labels]
"""reads a label file, given the duration of its recording if there is one"""
READERS: dict[str, Reader] = {
    ".lab": read_htk,
    ".textgrid": read_textgrid,
    ".lrc": read_lrc,
    ".srt": read_srt,
}
"""by suffix in lower case; of several files with one stem, the first of this order is read"""


def read_labels(path: Path, seconds: float | None = None) -> Labels:
    """Read a file with one of the suffixes of ``READERS``.

    Parameters
    ----------
    seconds
        Duration of the recording; None if there is none.

    Raises
    ------
    melnet.data.labels.label.LabelError
        The file is damaged, or its times cannot be; the message names it and, where there is one, the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.lab").write_text("0.0 0.5 a")
    ...     read_labels(Path(folder, "a.lab"))
    Labels(labels=[Label(start=0.0, end=0.5, name='a')], unit='phonemes', times='s')
    """
    return READERS[path.suffix.lower()](path, seconds)
