"""Words with times by line: lyrics (``.lrc``) and subtitles (``.srt``).

Nothing says how words are pronounced, so the unit is the character: the letters of a line are spread evenly over its
time.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from melnet.data.labels.label import Entry, Label, LabelError, Labels, ordered
from melnet.data.labels.text import letters, read_lines

MAX_CHARACTER_SECONDS = 0.5  # so that the last line before an interlude is not spread over it
TIME = r"(\d+):(\d\d(?:[.:]\d+)?)"
LRC_LINE = re.compile(rf"\s*((?:\[{TIME}\]\s*)+)(.*)")
LRC_TIME = re.compile(rf"[\[<]{TIME}[\]>]")
LRC_TAG = re.compile(r"\[([A-Za-z#]+):(.*)\]")
SRT_TIMES = re.compile(r"\s*(\d+):(\d\d):(\d\d[.,]\d+)\s*-->\s*(\d+):(\d\d):(\d\d[.,]\d+)(?:\s.*)?")
MARKUP = re.compile(r"<[^>]*>|\{[^}]*\}")


def read_lrc(path: Path, seconds: float | None = None) -> Labels:
    """Read lyrics with the time of each line, ``[01:23.45]``, and maybe of words in it, ``<01:24.10>``.

    A line or word lasts until the next one, but at most half a second per character. A line with several times is sung
    at each of them. ``[offset:500]`` makes all words come half a second earlier.

    Parameters
    ----------
    seconds
        Duration of the recording; None if there is none.

    Raises
    ------
    LabelError
        See :func:`melnet.data.labels.label.ordered`; also if a line has no time. The message names the file and the
        line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.lrc").write_text("[00:01.00]Oh\\n[00:02.00]\\n")
    ...     read_lrc(Path(folder, "a.lrc")).labels
    [Label(start=1.0, end=1.5, name='o'), Label(start=1.5, end=2.0, name='h')]
    """
    offset, repeated = 0.0, False
    starts: list[tuple[str, float, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        place = f"{path}, line {number}"
        found = LRC_LINE.fullmatch(line)
        if tag := None if found else LRC_TAG.fullmatch(line.strip()):
            offset = _milliseconds(place, tag[2]) / 1000 if tag[1].lower() == "offset" else offset
        elif found:
            times, (first, *words) = _seconds(found[1]), LRC_TIME.split(found[4])[::3]
            if words and len(times) > 1:
                raise LabelError(f"{place}: a line that is sung several times cannot have times of words")
            repeated = repeated or len(times) > 1
            starts += [(place, time, first) for time in times]
            starts += [(place, time, word) for time, word in zip(_seconds(found[4]), words, strict=True)]
        elif line.strip():
            raise LabelError(f"{place}: expected a time such as [01:23.45], but it is {line[:60]!r}")
    if repeated:
        starts.sort(key=lambda start: start[1])
    for (_, before, _), (place, time, _) in pairwise(starts):
        if time < before:
            raise LabelError(f"{place}: {time:g} s lies before the time before it, {before:g} s")
    ends = [time for _, time, _ in starts[1:]] + [float("inf")]
    lines = [
        Entry(place, Label(max(0.0, time - offset), max(0.0, end - offset), text))
        for (place, time, text), end in zip(starts, ends, strict=False)  # without starts there is one end
    ]
    return _spread(path, lines, seconds)


def _seconds(text: str) -> list[float]:
    return [60 * float(minutes) + float(seconds.replace(":", ".")) for minutes, seconds in LRC_TIME.findall(text)]


def _milliseconds(place: str, text: str) -> float:
    try:
        return float(int(text))
    except ValueError:
        raise LabelError(f"{place}: the offset {text[:60]!r} is no whole number of milliseconds") from None


def read_srt(path: Path, seconds: float | None = None) -> Labels:
    """Read subtitles; their markup is left out.

    Parameters
    ----------
    seconds
        Duration of the recording; None if there is none.

    Raises
    ------
    LabelError
        See :func:`melnet.data.labels.label.ordered`; also if a subtitle has no times. The message names the file and
        the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.srt").write_text("1\\n00:00:01,000 --> 00:00:01,500\\n<i>Oh</i>\\n")
    ...     read_srt(Path(folder, "a.srt")).labels
    [Label(start=1.0, end=1.25, name='o'), Label(start=1.25, end=1.5, name='h')]
    """
    lines: list[Entry] = []
    in_text = False
    for number, line in enumerate(read_lines(path), 1):
        place = f"{path}, line {number}"
        if found := SRT_TIMES.fullmatch(line):
            times = [float(part.replace(",", ".")) for part in found.groups()]
            start, end = (3600 * hours + 60 * minutes + rest for hours, minutes, rest in (times[:3], times[3:]))
            lines.append(Entry(place, Label(start, end, "")))
            in_text = True
        elif in_text and line.strip():
            lines[-1] = lines[-1]._replace(label=lines[-1].label._replace(name=f"{lines[-1].label.name} {line}"))
        elif line.strip() and not line.strip().isdecimal():
            raise LabelError(f"{place}: expected the number or the times of a subtitle, but it is {line[:60]!r}")
        else:
            in_text = False
    return _spread(path, lines, seconds)


def _spread(path: Path, lines: Sequence[Entry], seconds: float | None) -> Labels:
    """The letters of lines, each spread evenly over the time of its line."""
    spelt = [(place, start, end, letters(MARKUP.sub("", text))) for place, (start, end, text) in lines]
    sung = [
        Entry(place, Label(start, min(end, start + MAX_CHARACTER_SECONDS * len(names)), "".join(names)))
        for place, start, end, names in spelt
        if names
    ]
    if not sung:
        raise LabelError(f"{path}: holds no words")
    labels = []
    for start, end, name in ordered(sung, seconds):
        step = (end - start) / len(name)
        labels += [Label(start + i * step, start + (i + 1) * step, letter) for i, letter in enumerate(name)]
    return Labels(labels, "characters", "s")
