"""Prefect artifacts of a run: tables of versions and metrics, with links to pictures and pages.

Pictures and pages are copied below the folder MELNET_FILES, which `make host` serves at MELNET_FILES_URL, into a folder
named by their output's hash. So a link keeps showing the version that its run made.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import humanize
from prefect.artifacts import create_markdown_artifact

from pipeline.graph import Output

LINKED = {".png", ".svg", ".html"}


def artifact_key(*names: str) -> str:
    """Return a key that Prefect accepts: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def publish_versions(root: Path, stage: str, outputs: list[Output], remote: str, run: str) -> None:
    """Publish the table of a stage's outputs; ``remote`` is where they were pushed, or empty."""
    table = versions_table(outputs, remote)
    pages = [*links(root, outputs), *preview_link(root, stage, outputs)]
    lines = [f"# {stage}", "", f"Run `{run}` in `{root}`", "", table, *pages]
    _publish(artifact_key(stage), f"Versions of the outputs of {stage}" + ", pushed" * bool(remote), lines)


def publish_metrics(root: Path, stage: str, difference: str, outputs: list[Output], run: str) -> None:
    """Publish the table of metrics after a stage and in HEAD, with links to the pictures among ``outputs``."""
    table = difference or "There are none."
    lines = [f"# Metrics after {stage}", "", f"Run `{run}`, compared with HEAD", "", table, *links(root, outputs)]
    _publish(artifact_key("metrics", stage), f"Metrics after {stage}, compared with HEAD", lines)


def publish_run(run: str, message: str, result: dict[str, Any]) -> None:
    """Publish the result of a whole run."""
    rows = [f"| {name} | `{value}` |" for name, value in result.items() if name != "metrics"]
    metrics = ["```json", json.dumps(result["metrics"], indent=2), "```"]
    lines = [f"# Run {run}", "", message, "", "| what | version |", "| --- | --- |", *rows, "", *metrics]
    _publish("melnet-run", "Commit, dvc.lock and metrics of the run", lines)


def _publish(key: str, description: str, lines: list[str]) -> None:
    create_markdown_artifact("\n".join(lines), key=key, description=description)


def versions_table(outputs: list[Output], remote: str) -> str:
    """Return a Markdown table of the outputs, their DVC hashes, their sizes and where they are kept."""
    rows = ["| output | DVC hash | size | files | pushed to |", "| --- | --- | ---: | ---: | --- |"]
    for output in outputs:
        kept = (remote or "not pushed") if output.cached else "kept by Git"
        size = humanize.naturalsize(output.size)
        rows.append(f"| {output.path} | `{output.hash}` | {size} | {output.files} | {kept} |")
    return "\n".join(rows)


def links(root: Path, outputs: list[Output]) -> list[str]:
    """Return Markdown lines that link pages and pictures; pictures are embedded if a server serves them."""
    lines = []
    for output in outputs:
        path = root / output.path
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in LINKED and file.is_file():
                name = file.relative_to(root).as_posix()
                url = _url(path, file, output.hash)
                embedded = file.suffix != ".html" and url.startswith("http")
                lines += ["", f"[{name}]({url})", *(["", f"![{name}]({url})"] if embedded else [])]
    return lines


def preview_link(root: Path, stage: str, outputs: list[Output]) -> list[str]:
    """Return Markdown lines that link the page on which the latest training of a tier sings, if there is one."""
    folder = root / "logs" / stage.partition("@")[2] / "previews"  # of train@tier-1: logs/tier-1/previews
    page = folder / "index.html"
    if not page.is_file():
        return []
    # DVC does not know the page: it is kept beside the version of the weights.
    return ["", f"[Previews of the latest training here]({_url(folder, page, f'{outputs[0].hash}-previews')})"]


def _url(output: Path, file: Path, version: str) -> str:
    """Copy an output to the served folder, and return the address of a file in it; without a server, the file's own."""
    served, base = os.environ.get("MELNET_FILES"), os.environ.get("MELNET_FILES_URL")
    if not served or not base:
        return file.as_uri()
    copy = Path(served) / version.removesuffix(".dir")
    if output.is_dir():
        shutil.copytree(output, copy, dirs_exist_ok=True)
        return f"{base}/{copy.name}/{file.relative_to(output).as_posix()}"
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, copy)
    return f"{base}/{copy.name}/{file.name}"
