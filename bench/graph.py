"""The cost of the graph when there is nothing to do: an up-to-date `dvc repro`, and the start of a stage.

`dvc repro` is timed in a small copy of this project in which the graph has run once. A stage is timed from the command
to its first work: it imports what it needs, reads params.yaml, and ends because its input is missing (downsample,
slice). The stage demo has no input; it ends at an invalid setting, after the same imports. Python that does nothing is
timed in turn with them.
"""

import statistics
import tempfile
from pathlib import Path

from bench.common import Claim, alternate, python, report, seconds
from tests.params_file import edit_params
from tests.test_graph import clone, run

ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        claims = [_repro(Path(name) / "project"), *_starts(Path(name) / "empty")]
    report(*claims)


def _repro(folder: Path) -> Claim:
    clone(folder)
    print(f"first run of the graph: {seconds(lambda: run(folder, 'dvc', 'repro')):.0f} s", flush=True)
    times = [time for (time,) in alternate(ROUNDS, lambda: seconds(lambda: run(folder, "dvc", "repro")))]
    return Claim.at_most(3, "dvc repro with nothing to do", times, "s")


def _starts(folder: Path) -> list[Claim]:
    folder.mkdir()
    edit_params(folder, {})
    broken = folder / "broken"
    broken.mkdir()
    edit_params(broken, {"demo": {"seed": -1}})

    def start(stage: str, cwd: Path) -> float:
        return seconds(lambda: python("-m", f"stages.{stage}", cwd=cwd, expected=1))

    measured = alternate(
        ROUNDS,
        lambda: start("downsample", folder),
        lambda: start("slice", folder),
        lambda: start("demo", broken),
        lambda: seconds(lambda: python("-c", "pass", cwd=folder)),
    )
    *stages, bare = zip(*measured, strict=True)
    print(f"Python alone: {statistics.median(bare):.3f} s")
    names = ("downsample", "slice", "demo")
    return [
        Claim.at_most(1.5, f"start of the stage {name}", times, "s") for name, times in zip(names, stages, strict=True)
    ]


if __name__ == "__main__":
    main()
