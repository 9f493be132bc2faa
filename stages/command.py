"""The command line of the stages: reading the parameters, errors, exit status."""

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from humanize import naturalsize

from melnet.errors import MelnetError
from stages.parameters import ParamsError, load_params
from stages.paths import PARAMS


class StageError(RuntimeError):
    """An error that ends a stage; its message is written for the user and is shown without a traceback."""


def main(
    stage: Callable[..., None],
    doc: str | None,
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """Run a stage as a program: ``--help`` prints ``doc``; a wrong setting or input ends it with one line and status 1.

    ``arguments`` adds options to the parser; the stage gets their values as keyword arguments.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    options = vars(parser.parse_args())
    try:
        stage(load_params(PARAMS), **options)
    except (ParamsError, StageError, MelnetError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except Exception as error:
        # When the disk is full, TensorFlow's log writer raises an error of its own, which is no OSError.
        full = [line for line in str(error).splitlines() if os.strerror(errno.ENOSPC) in line]
        if not full:
            raise
        where = full[0].rpartition("}} ")[2].replace(os.strerror(errno.ENOSPC), "no space left on device")
        sys.exit(f"{name}: {where}; {naturalsize(shutil.disk_usage('.').free)} free")
