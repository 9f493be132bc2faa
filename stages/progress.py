"""Progress bars: a moving bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 10.0  # between two lines in a log


def progress(
    items: Iterable[Any] | None = None,
    *,
    total: int,
    label: str,
    unit: str,
    log_seconds: float = LOG_SECONDS,
    **options: Any,
) -> tqdm:
    """A bar named ``label`` over ``items``, or one moved by its ``update()``; it counts up to ``total`` of ``unit``."""
    if not sys.stderr.isatty():
        # In a log, a carriage return would glue all states of the bar into one line.
        options |= {"mininterval": log_seconds, "maxinterval": log_seconds}
        options["bar_format"] = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed}<{remaining}\n"
    return tqdm(items, total=total, desc=label, unit=f" {unit}", **options)
