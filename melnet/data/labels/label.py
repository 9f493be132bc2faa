"""Labels, and the checks that all formats share."""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from melnet.errors import MelnetError

Unit: TypeAlias = Literal["phonemes", "characters"]
"""what labels name: the phonemes of a corpus, or the letters of its words"""

# Of the 49 songs of PJS, one has a label that begins 0.23 s after the end of its recording.
TOLERANCE_SECONDS = 0.25
ROUNDING_SECONDS = 1e-4  # by which neighbouring labels may overlap, since tools round times differently


class LabelError(MelnetError):
    """Labels cannot be used; the message names the file and, where there is one, the line."""


class Label(NamedTuple):
    """A stretch of a recording with one name."""

    start: float
    """in seconds"""
    end: float
    """in seconds, not before ``start``"""
    name: str


class Entry(NamedTuple):
    """A label and its place as messages say it: ``a.lab, line 3``."""

    place: str
    label: Label


class Labels(NamedTuple):
    """The labels of a recording, in order; none overlaps another, and stretches without a label may lie between."""

    labels: list[Label]
    unit: Unit
    times: str
    """the unit of the times in the file: ``100 ns`` or ``s``"""


def ordered(entries: Iterable[Entry], seconds: float | None = None) -> list[Label]:
    """Labels whose times were checked.

    Parameters
    ----------
    seconds
        Duration of the recording, at which the last label is cut off; None if there is none.

    Raises
    ------
    LabelError
        A name is empty, a time is negative or not finite, a label ends before it begins, begins before the one before
        it ends, or begins more than ``TOLERANCE_SECONDS`` after the end of the recording. The message begins with the
        place.

    >>> ordered([Entry("line 1", Label(0.0, 1.0, "a")), Entry("line 2", Label(1.0, 3.5, "i"))], seconds=3.0)
    [Label(start=0.0, end=1.0, name='a'), Label(start=1.0, end=3.0, name='i')]
    """
    labels: list[Label] = []
    last = 0.0
    for place, (start, end, name) in entries:
        if not name.strip():
            raise LabelError(f"{place}: the name is empty")
        if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
            raise LabelError(f"{place}: {name!r} is sung from {start:g} s to {end:g} s, which are no times")
        if end < start:
            raise LabelError(f"{place}: {name!r} ends at {end:.4f} s, before it begins, at {start:.4f} s")
        if start < last - ROUNDING_SECONDS:
            before = f"before the label before it ends, at {last:.4f} s"
            raise LabelError(f"{place}: {name!r} begins at {start:.4f} s, {before}")
        if seconds is not None and start > seconds + TOLERANCE_SECONDS:
            raise LabelError(f"{place}: {name!r} begins at {start:.4f} s, but the recording ends at {seconds:.4f} s")
        start = max(start, last)
        end = last = max(start, end)
        if seconds is None or start < seconds:
            labels.append(Label(start, end if seconds is None else min(end, seconds), name))
    return labels
