"""Files and folders that appear complete or not at all: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from humanize import naturalsize

# Some libraries do not say why a write failed. With fewer free bytes than this, the disk is taken to be full.
FULL = 2**16


class NoSpace(OSError):
    """The disk is full, or too full to begin; the message names the path, the free and the needed space."""

    def __init__(self, message: str, free: int) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC
        self.free = free  # bytes, before anything was written


@contextmanager
def atomic_write(path: Path, needed: int = 0) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends without an error.

    Missing parent folders are made. On an error the temporary file is removed and ``path`` is as it was. Leftovers of a
    killed process are removed at the next use for the same ``path``, so two processes must not write one file at the
    same time; several may write different files of one folder.

    Raises
    ------
    NoSpace
        The disk is full, or has less than ``needed`` bytes to begin with.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "new", "a.txt")) as temporary:
    ...         characters = temporary.write_text("text")
    ...     Path(folder, "new", "a.txt").read_text()
    'text'
    """

    def make(prefix: str) -> str:
        # The temporary name keeps the suffix, by which writers choose the format (.flac, .weights.h5), but not the
        # whole name, which may be 255 bytes long and leave no room for the prefix.
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=f"-{path.name[-40:]}", dir=path.parent)
        os.close(descriptor)
        return name

    with _beside(path, needed, make) as (temporary, _):
        yield temporary
        _sync(temporary)
        _publish(temporary, 0o666)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def atomic_folder(path: Path, needed: int = 0) -> Iterator[Path]:
    """Give a new, empty folder beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Missing parent folders are made. The previous folder, file or link at ``path`` is removed only once the new folder
    is complete; on an error the new one is removed and ``path`` is as it was. Leftovers of a killed process are removed
    at the next use for the same ``path``, so two processes must not write one folder at the same time.

    Raises
    ------
    NoSpace
        The disk is full, or has less than ``needed`` bytes to begin with.

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with atomic_folder(Path(parent, "samples")) as folder:
    ...         characters = (folder / "a.txt").write_text("text")
    ...     sorted(path.name for path in Path(parent, "samples").iterdir())
    ['a.txt']
    """
    with _beside(path, needed, lambda prefix: tempfile.mkdtemp(prefix=prefix, dir=path.parent)) as (
        temporary,
        replaced,
    ):
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; equal content gives equal bytes.

    Raises
    ------
    ValueError
        The content holds NaN or infinity, which JSON does not have.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "metrics.json"), {"nll": -0.5})
    ...     json.loads(Path(folder, "metrics.json").read_text())
    {'nll': -0.5}
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _beside(path: Path, needed: int, make: Callable[[str], str]) -> Iterator[tuple[Path, Path]]:
    """Make a temporary file or folder, whose name begins as ``make`` is told, and remove it when the block ends.

    The second name is where what ``path`` was may be kept until it is replaced.
    """
    # A digest, since one file name may begin with another.
    prefix = f".tmp-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
    replaced = path.with_name(f"{prefix}replaced")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(replaced) and not os.path.lexists(path):
            replaced.rename(path)  # killed while the folder was replaced
        with os.scandir(path.parent) as entries:
            stale = [path.with_name(entry.name) for entry in entries if entry.name.startswith(prefix)]
        for left in stale:
            _remove(left)
        _check_free(path, needed)
        temporary = Path(make(prefix))
    try:
        yield temporary, replaced
    except OSError as error:
        _check_full(error, path, temporary)
        raise
    finally:
        _remove(temporary)
        _remove(replaced)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name ``path`` instead of a temporary file."""
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
        raise NoSpace(
            f"{path}: no space left on the device: {naturalsize(needed)} needed, {naturalsize(free)} free", free
        )


def _check_full(error: OSError, path: Path, temporary: Path) -> None:
    """Raise :class:`NoSpace` if the disk was full."""
    free = shutil.disk_usage(path.parent).free
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and free < FULL):
        free += _used(temporary)
        had = f"more than the {naturalsize(free)} that were free are needed"
        raise NoSpace(f"{path}: no space left on the device: {had}", free) from error


def _used(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _sync(path: Path) -> None:
    """Flush a file's bytes, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not support it for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _publish(temporary: Path, mode: int) -> None:
    """Give a result the permissions of this user's other files; temporary files are private."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
