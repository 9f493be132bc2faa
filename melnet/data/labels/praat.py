"""Praat's annotations (``.TextGrid``), in long, short and JSON form."""

from pathlib import Path
from typing import Any

from melnet.data.labels.label import Entry, Label, LabelError, Labels, ordered
from melnet.data.labels.text import read_lines

INTERVAL_CLASSES = ("IntervalTier", "interval")  # the latter in the JSON of the Montreal Forced Aligner
PHONE_TIERS = ("phones", "phonemes", "phone", "phoneme")
"""names of the tier that is read, in any case; the Montreal Forced Aligner writes the speaker too: ``Anna - phones``"""


def read_textgrid(path: Path, seconds: float | None = None) -> Labels:
    """Read the interval tier that holds phonemes: the only one, or the one named so.

    Intervals without text are stretches without a label.

    Parameters
    ----------
    seconds
        Duration of the recording; None if there is none.

    Raises
    ------
    LabelError
        See :func:`melnet.data.labels.label.ordered`; also if the file is damaged, or if no tier or several could be
        meant. The message names the file, the tier and the interval.
    """
    tier = _phone_tier(path, _parsed(path))
    name = f"{path}, tier {tier['name']!r}"
    entries = []
    try:
        for number, (start, end, text) in enumerate(tier["entries"], 1):
            entries.append(Entry(f"{name}, interval {number}", Label(float(start), float(end), text.strip())))
    except (TypeError, ValueError, AttributeError) as error:
        raise LabelError(f"{name}: an interval cannot be read: {error}") from error
    if not entries or abs(entries[-1].label.end - tier["xmax"]) > 1e-3:
        last = f"at {entries[-1].label.end:.4f} s" if entries else "nowhere"
        raise LabelError(f"{name}: truncated: it ends at {tier['xmax']:.4f} s, its last interval {last}")
    return Labels(ordered([entry for entry in entries if entry.label.name], seconds), "phonemes", "s")


def _parsed(path: Path) -> dict[str, Any]:
    from praatio.utilities.textgrid_io import parseTextgridStr  # takes a tenth of a second, and few corpora need it

    text = "\n".join(read_lines(path)) + "\n"
    try:
        grid: dict[str, Any] = parseTextgridStr(text, includeEmptyIntervals=True)
        for tier in grid["tiers"]:
            tier["xmax"], tier["entries"] = float(tier["xmax"]), list(tier["entries"])
            tier["name"].casefold()
    except Exception as error:  # of many classes, as the damage has it
        raise LabelError(f"{path}: not a TextGrid, or damaged: {' '.join(str(error).split())[:100]}") from error
    return grid


def _phone_tier(path: Path, grid: dict[str, Any]) -> dict[str, Any]:
    tiers = [tier for tier in grid["tiers"] if tier["class"] in INTERVAL_CLASSES]
    named = [tier for tier in tiers if tier["name"].casefold().rpartition(" - ")[2] in PHONE_TIERS]
    chosen = named or tiers
    if len(chosen) != 1:
        found = ", ".join(repr(tier["name"]) for tier in chosen) or "none"
        raise LabelError(f"{path}: one interval tier named phones is expected; there is {found}")
    return chosen[0]
