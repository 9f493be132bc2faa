"""A folder outside the project in which the stages run with their own parameters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.common import ENVIRONMENT, ROOT
from stages.parameters import Params, load_params
from tests.params_file import edit_params

CODE = ("melnet", "stages", "dvc.yaml")


class Workspace:
    """Runs the stages in a folder that stays: a finished stage is not run again, and an interrupted training resumes.

    ``changes`` are the values to change, by section and key, in the parameter file ``base`` of the project.
    """

    def __init__(self, folder: Path, base: str, changes: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in CODE:
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        edit_params(folder, changes, ROOT / base)

    @property
    def params(self) -> Params:
        return load_params(self.folder / "params.yaml")

    def run(self, stage: str, *arguments: str, made: str) -> None:
        """Run a stage, unless its result ``made`` exists."""
        if not (self.folder / made).exists():
            command = [sys.executable, "-m", f"stages.{stage}", *arguments]
            subprocess.run(command, cwd=self.folder, env=ENVIRONMENT, check=True)

    def finish(self) -> None:
        """Run all stages, from the corpus to the samples and their metrics."""
        self.prepare()
        self.run("vocoder", made="metrics/vocoder.json")
        self.run("model", made="models/melnet.json")
        for tier in self.params.model.tier_names:
            self.run("train", tier, made=f"metrics/train/{tier}.json")
        self.run("evaluate", made="metrics/evaluate.json")
        self.run("generate", made="metrics/generate.json")

    def prepare(self) -> None:
        """Run the stages that turn the corpus into shards, pitch and condition tracks."""
        self.run("downsample", made="data/24k/manifest.parquet")
        self.run("slice", made="data/shards/normalisation.json")
        self.run("pitch", made="data/pitch/pitch.parquet")
        self.run("tracks", made="data/tracks/tracks.parquet")

    def metrics(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / f"metrics/{name}.json").read_text(encoding="utf-8"))
        return content
