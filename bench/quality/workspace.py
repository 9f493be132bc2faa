"""A folder in which the stages run with parameters of their own, beside the project's."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.common import ENVIRONMENT, ROOT
from melnet.config import Params, load_params

CODE = ("melnet", "stages", "dvc.yaml")


class Workspace:
    """Stages in a folder that stays; one that has run is not run again, and an interrupted training goes on.

    ``changes`` are sections and keys of the parameter file ``base``, below the project's folder.
    """

    def __init__(self, folder: Path, base: str, changes: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in CODE:
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        yaml = YAML()
        content = yaml.load(ROOT / base)
        for section, values in changes.items():
            content[section].update(values)
        yaml.dump(content, folder / "params.yaml")

    @property
    def params(self) -> Params:
        return load_params(self.folder / "params.yaml")

    def run(self, stage: str, *arguments: str, made: str | None = None) -> float:
        """Run a stage unless the file ``made`` is there; processor seconds that it took, 0 if it did not run."""
        if made is not None and (self.folder / made).exists():
            return 0.0
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}", *arguments], cwd=self.folder, env=ENVIRONMENT, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    def prepare(self) -> None:
        """From the corpus to ``models/melnet.json``."""
        self.run("downsample", made="data/24k/manifest.parquet")
        self.run("slice", made="data/shards/normalisation.json")
        self.run("model", made="models/melnet.json")

    def train(self) -> dict[str, float]:
        """Processor seconds of each tier, also of earlier calls."""
        path = self.folder / "seconds.json"
        spent: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        for tier in self.params.model.tier_names:
            used = self.run("train", tier, made=f"metrics/train/{tier}.json")
            spent[tier] = spent.get(tier, 0.0) + used
            path.write_text(json.dumps(spent))
        return spent

    def metrics(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / f"metrics/{name}.json").read_text(encoding="utf-8"))
        return content
