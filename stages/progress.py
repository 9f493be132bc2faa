"""Progress bars that suit who reads them: a moving bar on a terminal, now and then a line in a log."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 10.0  # between two lines of a log


def progress(items: Iterable[Any] | None = None, *, total: int, label: str, unit: str) -> tqdm:
    """A bar named ``label`` over ``items``, or one that is moved by hand, counting ``total`` of ``unit``."""
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        desc=label,
        unit=f" {unit}",
        mininterval=0.1 if terminal else LOG_SECONDS,
        # Without a terminal a carriage return would glue all states of the bar into one line.
        bar_format=None if terminal else "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed}<{remaining}\n",
    )
