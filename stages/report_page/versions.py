"""Which versions a run is of: hashes in dvc.lock, and the commit and its metrics in git."""

import json
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.command import METRICS

LOCK = Path("dvc.lock")


def output_hashes(paths: list[Path]) -> dict[str, str]:
    """MD5 of these outputs of the graph, as ``dvc.lock`` has them; without those that no stage run by DVC has made."""
    if not LOCK.is_file():
        return {}
    stages = YAML(typ="safe").load(LOCK).get("stages", {})
    hashes = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    names = [path.as_posix() for path in paths]
    return {name: hashes[name] for name in names if name in hashes}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by dots."""
    items: dict[str, Any] = {}
    for key, value in content.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def metrics() -> dict[str, dict[str, Any]]:
    """Numbers of each metrics file, by its name below metrics/ without suffix."""
    names = {path.relative_to(METRICS).with_suffix("").as_posix(): path for path in METRICS.rglob("*.json")}
    return {name: flat(json.loads(names[name].read_text(encoding="utf-8"))) for name in sorted(names)}


def head(names: list[str]) -> dict[str, Any]:
    """The last commit, how many files differ from it, and what the metrics files of these names hold there.

    Without git, or before the first commit, ``commit`` is None.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return {"commit": None, "changed": 0, "metrics": {}}
    previous = {name: _git("show", f"HEAD:./{(METRICS / name).as_posix()}.json") for name in names}
    return {
        "commit": commit.strip(),
        "changed": len((_git("status", "--porcelain") or "").splitlines()),
        "metrics": {name: flat(json.loads(text)) for name, text in previous.items() if text is not None},
    }


def _git(*arguments: str) -> str | None:
    """What git prints; None if it fails, as it does outside a repository and for a file that is not in a commit."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:  # no git on this machine
        return None
    return result.stdout if result.returncode == 0 else None
