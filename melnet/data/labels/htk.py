"""HTK labels (``.lab``): a line per label with its start, its end and its name.

Times are whole numbers of 100 ns. Some tools write seconds with a decimal point instead, which are read as such.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from melnet.data.labels.label import Entry, Label, LabelError, Labels, ordered
from melnet.data.labels.text import read_lines

TICKS = 10_000_000  # of 100 ns in a second
SHORTEST_SECONDS = 0.01  # whole numbers that end earlier are seconds, not ticks
NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")


def read_htk(path: Path, seconds: float | None = None) -> Labels:
    """Read HTK labels.

    Parameters
    ----------
    seconds
        Duration of the recording; None if there is none.

    Raises
    ------
    LabelError
        See :func:`melnet.data.labels.label.ordered`; also if a line has other than three columns. A fourth one with a
        number, HTK's score, is skipped. The message names the file and the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.lab").write_text("0 5000000 pau\\n5000000 9000000 a\\n")
    ...     read_htk(Path(folder, "a.lab")).labels
    [Label(start=0.0, end=0.5, name='pau'), Label(start=0.5, end=0.9, name='a')]
    """
    rows = [(f"{path}, line {number}", line.split()) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not rows:
        raise LabelError(f"{path}: holds no labels")
    for place, row in rows:
        scored = len(row) == 4 and NUMBER.fullmatch(row[3])
        if (len(row) != 3 and not scored) or not (NUMBER.fullmatch(row[0]) and NUMBER.fullmatch(row[1])):
            raise LabelError(f"{place}: expected start, end and name, but it is {' '.join(row)[:60]!r}")
    whole = all(time.lstrip("-").isdecimal() for _, row in rows for time in row[:2])
    scale = TICKS if whole else 1
    entries = [
        Entry(place, Label(float(start) / scale, float(end) / scale, name)) for place, (start, end, name, *_) in rows
    ]
    if whole and entries[-1].label.end < SHORTEST_SECONDS:
        raise LabelError(
            f"{entries[-1].place}: the labels end after {entries[-1].label.end:g} s: whole numbers are times in "
            "100 ns; write seconds with a decimal point"
        )
    return Labels(ordered(entries, seconds), "phonemes", "100 ns" if whole else "s")


def write_htk(path: Path, labels: Sequence[Label]) -> None:
    """Write labels in units of 100 ns, in UTF-8.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_htk(Path(folder, "a.lab"), [Label(0.25, 0.5, "a")])
    ...     Path(folder, "a.lab").read_text()
    '2500000 5000000 a\\n'
    """
    lines = [f"{round(start * TICKS)} {round(end * TICKS)} {name}\n" for start, end, name in labels]
    path.write_text("".join(lines), encoding="utf-8")
