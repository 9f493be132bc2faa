"""A text without times (``.txt``): what is said or sung in a recording."""

from pathlib import Path

from melnet.data.labels.label import Label, LabelError, Labels
from melnet.data.labels.text import characters, read_lines


def read_plain(path: Path, seconds: float | None = None) -> Labels:
    """Read the characters of a text; they are spread evenly over the recording, since nothing says when they come.

    Parameters
    ----------
    seconds
        Duration of the recording; None: one second.

    Raises
    ------
    LabelError
        The file cannot be read, is in another encoding than UTF-8 or UTF-16, or is empty; the message names it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     written = Path(folder, "a.txt").write_text("Oh\\n")
    ...     read_plain(Path(folder, "a.txt"), seconds=4.0).labels
    [Label(start=0.0, end=2.0, name='o'), Label(start=2.0, end=4.0, name='h')]
    """
    found = characters(" ".join(read_lines(path)))
    if not found:
        raise LabelError(f"{path}: holds no text")
    step = (1.0 if seconds is None else seconds) / len(found)
    return Labels([Label(i * step, (i + 1) * step, name) for i, name in enumerate(found)], "characters", "none")
