"""Versions of a run: the hashes in dvc.lock, the commit in git and its metrics."""

import json
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.paths import METRICS

LOCK = Path("dvc.lock")


def output_hashes(paths: list[Path]) -> dict[str, str]:
    """MD5 of outputs from ``dvc.lock``. Outputs that are not in it are left out."""
    if not LOCK.is_file():
        return {}
    stages = YAML(typ="safe").load(LOCK).get("stages", {})
    hashes = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    names = [path.as_posix() for path in paths]
    return {name: hashes[name] for name in names if name in hashes}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; keys are joined by dots."""
    items: dict[str, Any] = {}
    for key, value in content.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def metrics() -> dict[str, dict[str, Any]]:
    """Numbers of each metrics file, by its name below metrics/ without suffix."""
    names = {path.relative_to(METRICS).with_suffix("").as_posix(): path for path in METRICS.rglob("*.json")}
    return {name: flat(json.loads(names[name].read_text(encoding="utf-8"))) for name in sorted(names)}


def head(names: list[str]) -> dict[str, Any]:
    """The last commit, the number of files that differ from it, and its metrics files of these names.

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
    """Output of a git command; None if it fails, for example outside a repository."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:  # no git on this machine
        return None
    return result.stdout if result.returncode == 0 else None
