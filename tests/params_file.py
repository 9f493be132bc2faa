"""Parameter files for tests and benchmarks: this project's own, with some values changed."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PARAMS = Path(__file__).parents[1] / "params.yaml"


def edit_params(folder: Path, changes: dict[str, dict[str, Any]], base: Path = PARAMS) -> Path:
    """Write ``base`` with changed values, given by section and key, to ``folder / "params.yaml"``; return its path."""
    yaml = YAML()
    content = yaml.load(base)
    for section, values in changes.items():
        content[section].update(values)
    yaml.dump(content, folder / "params.yaml")
    return folder / "params.yaml"
