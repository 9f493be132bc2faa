"""One thin script per DVC stage: ``python -m stages.NAME`` reads params.yaml and files, calls melnet, writes files.

TensorFlow reports on stderr how it starts, and since 2.21 whatever ``TF_CPP_MIN_LOG_LEVEL`` says. While a stage imports
it, what it merely informs of is left out there; warnings and errors pass.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# What it reports later is still for this variable to keep to errors; before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The log lines of absl that begin with their severity I (information), not W, E or F; and what it says of itself.
NOTICES = r"^I[0-9]{4} |^WARNING: All log messages before absl::InitializeLog|^To enable the following instructions: "


@contextmanager
def without_notices() -> Iterator[None]:
    """Leave out of stderr, also of what native code writes there, the lines that match :data:`NOTICES`."""
    # A process of its own: it still passes on what a library says before it ends this one, as on a CPU without AVX.
    try:
        filtering = subprocess.Popen(["grep", "-vE", NOTICES], stdin=subprocess.PIPE, stdout=2)
    except OSError:  # no grep: nothing is left out
        yield
        return
    assert filtering.stdin is not None
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(filtering.stdin.fileno(), 2)
    filtering.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        filtering.wait()  # it has read to the end, now that nobody can write to it any more


class QuietImport(MetaPathFinder, Loader):
    """Imports one package :func:`without_notices`, whoever asks for it first."""

    def __init__(self, package: str) -> None:
        self.package = package
        self._loader: Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        assert self._loader is not None
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None and module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader  # as if it had never been otherwise
        with without_notices():
            self._loader.exec_module(module)


sys.meta_path.insert(0, QuietImport("tensorflow"))
