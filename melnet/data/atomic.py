"""Files and folders that appear complete or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Some libraries do not say why they could not write: with less than this left, it was the space.
FULL = 2**16


class NoSpace(OSError):
    """The disk is full, or too full to begin; the message has the path, what is free and what is needed."""

    def __init__(self, message: str, free: int) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC
        self.free = free  # bytes, before it was filled


@contextmanager
def written(path: Path, needed: int = 0) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends without an error.

    Missing parent folders are made. On an error the temporary file is removed and ``path`` is as it was. Leftovers of a
    process that was killed are removed at the next use for the same ``path``, so two processes must not write one file
    at the same time; several may write different files of one folder.

    Raises
    ------
    NoSpace
        The disk is full, or has less than ``needed`` bytes to begin with.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = _prefix(path)
        for stale in _named(path.parent, prefix):
            _remove(stale)
        _check_free(path, needed)
        # The end of the name is kept, since writers choose the format by it (.flac, .weights.h5); not all of it, so
        # that a name of 255 bytes has room for the prefix.
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=f"-{path.name[-40:]}", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        _publish(temporary, 0o666)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        _check_full(error, path, temporary)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path, needed: int = 0) -> Iterator[Path]:
    """Give a new, empty folder beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Missing parent folders are made. What ``path`` was before (folder, file or link) is removed only once the new folder
    is complete; on an error the new one is removed and ``path`` is as it was. Leftovers of a process that was killed
    are removed at the next use for the same ``path``, so two processes must not write one folder at the same time.

    Raises
    ------
    NoSpace
        The disk is full, or has less than ``needed`` bytes to begin with.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = _prefix(path)
        for stale in _named(path.parent, prefix):
            if stale.name.endswith("-replaced") and not os.path.lexists(path):
                stale.rename(path)  # killed between the two renames below
            else:
                _remove(stale)
        _check_free(path, needed)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    try:
        yield temporary
        _publish(temporary, 0o777)
        for folder, _, names in os.walk(temporary):
            for name in [*names, "."]:
                _sync(Path(folder, name))
        if os.path.lexists(path):
            path.rename(replaced)  # a folder cannot be renamed onto one that is not empty
        try:
            temporary.rename(path)
        except OSError:
            if os.path.lexists(replaced):
                replaced.rename(path)
            raise
        _sync(path.parent)
    except OSError as error:
        _check_full(error, path, temporary)
        raise
    finally:
        _remove(temporary)
        _remove(replaced)


def size(count: float) -> str:
    """Bytes in words: 3.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What prevents writing is said of ``path``, not of a temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC and not isinstance(error, NoSpace):
            raise NoSpace(f"{path}: no space left on the device", 0) from error
        if error.filename is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _check_free(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise NoSpace(f"{path}: no space left on the device: {size(needed)} needed, {size(free)} free", free)


def _check_full(error: OSError, path: Path, temporary: Path) -> None:
    """Raise :class:`NoSpace` if that was what prevented writing."""
    free = shutil.disk_usage(path.parent).free
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and free < FULL):
        free += _used(temporary)
        had = f"more than the {size(free)} that were free are needed"
        raise NoSpace(f"{path}: no space left on the device: {had}", free) from error


def _used(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _prefix(path: Path) -> str:
    """Of the temporary names for ``path``, and of no others: one name may begin like another, a digest does not."""
    return f".tmp-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def _named(folder: Path, prefix: str) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.name.startswith(prefix)]


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


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
