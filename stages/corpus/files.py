"""The files of a corpus, and the names of what is made of them."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

MANIFEST = "manifest.parquet"  # beside the FLAC files of data/24k, with the columns of SCHEMA
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # below corpus.path
        pa.field("singer", pa.string()),  # first folder of the path; null for a file that lies in none
        pa.field("output", pa.string()),  # below data/24k; null if rejected, like all that follows the reason
        pa.field("status", pa.string(), nullable=False),  # ok or rejected
        pa.field("reason", pa.string()),  # null if ok
        pa.field("source_rate", pa.int32()),  # Hz
        pa.field("channels", pa.int32()),
        pa.field("seconds_in", pa.float64()),
        pa.field("seconds_out", pa.float64()),
        pa.field("peak", pa.float64()),  # of the resampled signal before the gain, full scale is 1
        pa.field("rms", pa.float64()),  # likewise
        pa.field("gain", pa.float64()),  # factor that keeps the FLAC from clipping; 1 for nearly all
    ]
)
READABLE = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
    | {".w64", ".rf64", ".au", ".snd", ".caf", ".sph", ".nist", ".voc"}
)
UNREADABLE = frozenset({".m4a", ".m4b", ".mp4", ".aac", ".wma", ".ape", ".wv", ".mka", ".amr", ".ac3"})


@dataclass(frozen=True)
class Found:
    """A name in the corpus: its path below the root and, if it is not to be opened, why not."""

    path: Path
    problem: str | None = None


def walk(root: Path) -> Iterator[Found]:
    """All files below ``root``, in no order; nothing is opened, so that pipes and devices cannot block.

    Hidden folders are passed over; a folder that cannot be read is given with its problem, except for ``root``, which
    raises :class:`OSError`.
    """
    inside = root.resolve()
    pending = [Path()]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if folder == Path():
                raise
            yield Found(folder, f"folder cannot be read: {error.strerror}")
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if not hidden(path):
                    pending.append(path)
            else:
                yield Found(path, _problem(root / path, inside))


def _problem(path: Path, inside: Path) -> str | None:
    """Why a name that is no folder is not opened."""
    if hidden(path):
        return "hidden file"
    try:
        target = Path(os.path.realpath(path, strict=True))
        mode = target.stat().st_mode
    except OSError as error:
        return f"broken link: {error.strerror}" if path.is_symlink() else f"cannot be read: {error.strerror}"
    if not target.is_relative_to(inside):
        return "link out of the corpus"
    if stat.S_ISDIR(mode):
        return "link to a folder, which is not followed"
    return None if stat.S_ISREG(mode) else "not a regular file"


def named_audio(path: Path) -> bool:
    """Whether the name promises a recording."""
    return path.suffix.lower() in READABLE | UNREADABLE and not hidden(path)


def hidden(path: Path) -> bool:
    """A leading dot hides; several are the start of a title."""
    return path.name.startswith(".") and not path.name.startswith("..")


def text(path: Path) -> str:
    """A path as valid Unicode. A name that is not UTF-8 is escaped, with a digest against being taken for another."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"{raw.decode(errors='backslashreplace')} ({_digest(path)})"


def singer(path: Path) -> str | None:
    """Who sings a recording: the first folder of its path below the corpus; None if it lies in none."""
    return text(Path(path.parts[0])) if len(path.parts) > 1 else None


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def output_names(paths: list[Path]) -> list[str]:
    """A FLAC name for each path: valid Unicode, unique, and no folder of another's.

    The suffix becomes .flac; where two would then be the same, or differ in case only, and where the suffix is not one
    of audio, .flac is appended. What still collides, is too long for a file system or would hide the manifest gets a
    name made of its digest.
    """
    attempts = [0] * len(paths)
    while True:
        names = [_candidate(path, attempt) for path, attempt in zip(paths, attempts, strict=True)]
        taken = Counter(names) + Counter({str(parent) for name in names for parent in PurePosixPath(name).parents})
        # Names that keep their suffix may differ in case only, as their sources do.
        folded = Counter(name.casefold() for name, attempt in zip(names, attempts, strict=True) if attempt == 0)
        clashing = [
            i
            for i, (name, attempt) in enumerate(zip(names, attempts, strict=True))
            if attempt < 2
            and (taken[name] > 1 or (attempt == 0 and folded[name.casefold()] > 1) or not _storable(name))
        ]
        if not clashing:
            return names
        for i in clashing:
            attempts[i] += 1


def _candidate(path: Path, attempt: int) -> str:
    if attempt == 2:
        return f"{_digest(path)}.flac"
    replace = attempt == 0 and path.suffix.lower() in READABLE
    return f"{text(path.with_suffix('') if replace else path)}.flac"


def _storable(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0].casefold() != MANIFEST and all(len(part.encode()) <= 255 for part in parts) and len(name) <= 2048
