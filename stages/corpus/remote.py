"""A corpus at a URL, on any file system that fsspec knows: s3://bucket/folder, gs://, sftp://, http:// ..."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec  # type: ignore[import-untyped]  # carries no types

from stages.command import StageError
from stages.corpus.files import Found, hidden


def is_url(path: str) -> bool:
    """Whether a corpus has to be fetched; anything else is a folder."""
    return "://" in path


def walk_url(url: str) -> Iterator[Found]:
    """All files below a URL, in no order; hidden folders are passed over.

    Raises
    ------
    StageError
        If it cannot be listed.
    """
    try:
        system, root = fsspec.core.url_to_fs(url)
        names = system.find(root)
    except Exception as error:  # what the file systems of fsspec raise has no class in common
        raise StageError(f"corpus.path: {url} cannot be listed: {error}") from error
    for name in names:
        below = name.removeprefix(root).lstrip("/")
        parts = below.split("/")
        # Object stores have names that no folder can hold, and that would lead out of ours.
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            yield Found(Path(below.replace("\0", "")), "a name that no folder can hold")
            continue
        path = Path(below)
        if not any(hidden(parent) for parent in path.parents):
            yield Found(path, "hidden file" if hidden(path) else None)


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A copy of a file, on this machine (TMPDIR) until the block ends.

    Raises
    ------
    StageError
        If it cannot be read: a network that fails is no reason to leave a recording out.
    """
    with tempfile.TemporaryDirectory(prefix="melnet-") as folder:
        copy = Path(folder) / f"recording{PurePosixPath(url).suffix}"
        try:
            system, path = fsspec.core.url_to_fs(url)
            system.get_file(path, str(copy))
        except Exception as error:  # as above
            raise StageError(f"{url} cannot be read: {error}") from error
        yield copy
