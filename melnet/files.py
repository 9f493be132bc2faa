"""Files and folders that appear complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends without an error.

    Missing parent folders are made. On an error the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The end of the name is kept, since writers choose the format by it (.flac, .weights.h5); not more of it than any
    # of them needs, so that a name of 255 bytes has room for the prefix.
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", suffix="".join(path.suffixes)[-16:], dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _publish(temporary, 0o666)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Give a new, empty folder beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Missing parent folders are made. What ``path`` was before (folder, file or link) is removed only once the new folder
    is complete; on an error the new one is removed and ``path`` is as it was. Leftovers of a process that was killed
    are removed at the next use for the same ``path``, so two processes must not write one folder at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".tmp-{path.name}-"
    for stale in path.parent.iterdir():
        if stale.name.startswith(prefix):
            _remove(stale)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    try:
        yield temporary
        _publish(temporary, 0o777)
        if os.path.lexists(path):
            path.rename(replaced)  # a folder cannot be renamed onto one that is not empty
        try:
            temporary.rename(path)
        except OSError:
            if os.path.lexists(replaced):
                replaced.rename(path)
            raise
    finally:
        _remove(temporary)
        _remove(replaced)


def _publish(temporary: Path, mode: int) -> None:
    """Temporary names are made private; a result is as readable as any other of this user."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
