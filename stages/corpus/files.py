"""The files of a corpus on disk, and the names of the FLAC files made of them."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stages.corpus.manifest import MANIFEST

# Suffixes, in lower case, of the audio that libsndfile reads and of other audio.
READABLE = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
    | {".w64", ".rf64", ".au", ".snd", ".caf", ".sph", ".nist", ".voc"}
)
UNREADABLE = frozenset({".m4a", ".m4b", ".mp4", ".aac", ".wma", ".ape", ".wv", ".mka", ".amr", ".ac3"})


@dataclass(frozen=True)
class Found:
    """A file of the corpus."""

    path: Path  # below the root
    problem: str | None = None  # reason to reject it without opening it


def walk(root: Path) -> Iterator[Found]:
    """Yield the files below ``root``, in any order; none is opened, since pipes and devices would block.

    Hidden folders are skipped. A folder that cannot be read is yielded with its problem; if it is ``root``, its
    :class:`OSError` is raised.
    """
    inside = root.resolve()
    unreadable: list[OSError] = []
    for name, folders, files in os.walk(root, onerror=unreadable.append):
        folder = Path(name)
        below = folder.relative_to(root)
        for child in [*files, *(child for child in folders if (folder / child).is_symlink())]:
            yield Found(below / child, _problem(folder / child, inside))
        folders[:] = [child for child in folders if not hidden(Path(child))]
    for error in unreadable:
        folder = Path(error.filename)
        if folder == root:
            raise error
        yield Found(folder.relative_to(root), f"folder cannot be read: {error.strerror}")


def _problem(path: Path, inside: Path) -> str | None:
    """The reason to reject a file without opening it; None for a readable file."""
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
    """Whether the suffix is one of audio."""
    return path.suffix.lower() in READABLE | UNREADABLE and not hidden(path)


def hidden(path: Path) -> bool:
    """Whether a file or folder is hidden: by one leading dot, since several dots may begin a title."""
    return path.name.startswith(".") and not path.name.startswith("..")


def as_unicode(path: Path) -> str:
    """A path as valid Unicode. A name that is not UTF-8 is escaped, with a digest that keeps it unique."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"{raw.decode(errors='backslashreplace')} ({_digest(path)})"


def singer(path: Path) -> str | None:
    """The singer of a recording: the first folder of its path below the corpus; None outside any folder."""
    return as_unicode(Path(path.parts[0])) if len(path.parts) > 1 else None


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def output_names(paths: list[Path]) -> list[str]:
    """A FLAC name for each path: valid Unicode, unique, and no parent folder of another name.

    A suffix that libsndfile reads becomes .flac. If two names would then be the same, or differ in case only, and after
    any other suffix, .flac is appended. A name that still collides, is too long for a file system or would replace the
    manifest becomes the digest of the path.
    """
    attempts = [0] * len(paths)
    while True:
        names = [_candidate(path, attempt) for path, attempt in zip(paths, attempts, strict=True)]
        taken = Counter(names) + Counter({str(parent) for name in names for parent in PurePosixPath(name).parents})
        # Names with an appended .flac may differ in case only, since their sources do too.
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
    return f"{as_unicode(path.with_suffix('') if replace else path)}.flac"


def _storable(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0].casefold() != MANIFEST and all(len(part.encode()) <= 255 for part in parts) and len(name) <= 2048
