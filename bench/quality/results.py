"""Results of several seeds: their spread, and tables of them for the README."""

import statistics
from collections.abc import Mapping, Sequence

HELD_OUT = {"block_seconds": 3600.0, "test": 0.2}
"""settings of ``slice``: a block is longer than any recording, so that each is in one split"""
Summary = Mapping[str, Mapping[str, float]]
"""mean, least and largest value of each metric by its name"""


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, least and largest value over the seeds of each metric that all of them have."""
    return {
        name: {
            "mean": statistics.fmean(run[name] for run in runs),
            "least": min(run[name] for run in runs),
            "largest": max(run[name] for run in runs),
        }
        for name in runs[0]
        if all(name in run for run in runs)
    }


def table(columns: Mapping[str, Summary], rows: Mapping[str, tuple[str, int]]) -> str:
    """Markdown: a column per result by its heading, a row per metric by its label and its decimal places."""
    lines = [
        f"| {label} | {' | '.join(_figure(values.get(metric), digits) for values in columns.values())} |"
        for metric, (label, digits) in rows.items()
    ]
    return "\n".join([f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}", *lines])


def _figure(value: Mapping[str, float] | None, digits: int) -> str:
    if value is None:
        return ""
    mean, least, largest = (f"{value[name]:.{digits}f}" for name in ("mean", "least", "largest"))
    return mean if least == largest else f"{mean} ({least} to {largest})"
