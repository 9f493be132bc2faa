"""What every stage does the same way: its command line, its parameters, its JSON."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melnet.config import ParamsError, load_params
from melnet.files import written

PARAMS = Path("params.yaml")
CLEAN = Path("data/24k")
SHARDS = Path("data/shards")
MODELS = Path("models")
SAMPLES = Path("samples")
METRICS = Path("metrics")


class StageError(RuntimeError):
    """What stops a stage, in words for its user; no traceback is shown."""


def main(
    stage: Callable[..., None],
    doc: str | None,
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """Run a stage as a program: ``--help`` explains it, a wrong setting or input ends it with one line and status 1.

    ``arguments`` adds those that the stage takes beside its parameters, by the same names.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    options = vars(parser.parse_args())
    try:
        stage(load_params(PARAMS), **options)
    except (ParamsError, StageError, OSError) as error:
        sys.exit(f"{name}: {error}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that is byte-identical for equal content; appears complete or not at all."""
    with written(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
