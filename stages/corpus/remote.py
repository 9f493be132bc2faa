"""The files of a corpus at a URL of any file system that fsspec knows: s3://bucket/folder, gs://, sftp://, http://."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec  # type: ignore[import-untyped]  # carries no types

from stages.command import StageError
from stages.corpus.files import Found, hidden


def is_url(path: str) -> bool:
    """Whether a corpus is a URL; otherwise it is a folder."""
    return "://" in path


def walk_url(url: str) -> Iterator[Found]:
    """Yield the files below a URL, in any order, without hidden folders; :class:`StageError` if it cannot be listed."""
    try:
        system, root = fsspec.core.url_to_fs(url)
        names = system.find(root)
    except Exception as error:  # the errors of fsspec's file systems have no common class
        raise StageError(f"corpus.path: {url} cannot be listed: {error}") from error
    for name in names:
        below = name.removeprefix(root).lstrip("/")
        parts = below.split("/")
        # Object stores may hold names that are no file names, or that would lead out of the output folder.
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            yield Found(Path(below.replace("\0", "")), "a name that no folder can hold")
            continue
        path = Path(below)
        if not any(hidden(parent) for parent in path.parents):
            yield Found(path, "hidden file" if hidden(path) else None)


@contextmanager
def on_disk(source: Path | str) -> Iterator[Path]:
    """The file itself or, if ``source`` is a URL, a copy in TMPDIR until the block ends.

    A URL that cannot be read raises :class:`StageError`: a failing network ends the stage and rejects no recording.
    """
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="melnet-") as folder:
        copy = Path(folder) / f"recording{PurePosixPath(source).suffix}"
        try:
            system, path = fsspec.core.url_to_fs(source)
            system.get_file(path, str(copy))
        except Exception as error:  # as above
            raise StageError(f"{source} cannot be read: {error}") from error
        yield copy
