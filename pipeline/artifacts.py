"""What a run leaves in Prefect for people: tables of versions and metrics, links to pictures and pages.

Pictures are copied below the folder MELNET_FILES under the hash of their output, and linked below MELNET_FILES_URL,
where ``make host`` serves that folder: a link keeps showing the version that its run made.
"""

import os
import shutil
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from pipeline.graph import Output

SHOWN = {".png", ".svg", ".html"}


def key(stage: str, *more: str) -> str:
    """The key of a stage's artifact; Prefect takes lower-case letters, digits and dashes."""
    name = "-".join([stage, *more]).lower()
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name).split())


def publish_versions(root: Path, stage: str, outputs: list[Output], pushed: str, run: str) -> None:
    """The table of the versions that a stage made, and where they were pushed (empty: nowhere)."""
    lines = [f"# {stage}", "", f"Run `{run}` in `{root}`", "", versions_table(outputs, pushed), *links(root, outputs)]
    create_markdown_artifact(
        "\n".join(lines), key=key(stage), description=f"Versions that stage {stage} made" + (", pushed" * bool(pushed))
    )


def publish_metrics(root: Path, stage: str, difference: str, outputs: list[Output], run: str) -> None:
    """The metrics after a stage beside those of HEAD, and everything there is to look at."""
    table = difference or "There are none."
    lines = [f"# Metrics after {stage}", "", f"Run `{run}`, compared with HEAD", "", table, *links(root, outputs)]
    create_markdown_artifact(
        "\n".join(lines), key=key("metrics", stage), description=f"Metrics after {stage}, compared with HEAD"
    )


def publish_run(summary: str) -> None:
    """What a whole run came to."""
    create_markdown_artifact(summary, key="melnet-run", description="Commit, dvc.lock and metrics of the run")


def versions_table(outputs: list[Output], pushed: str) -> str:
    """Markdown table of outputs, their DVC hashes, sizes and whereabouts."""
    rows = ["| output | DVC hash | size | files | pushed to |", "| --- | --- | ---: | ---: | --- |"]
    for output in outputs:
        where = (pushed or "not pushed") if output.cached else "kept by Git"
        rows.append(f"| {output.path} | `{output.hash}` | {readable(output.size)} | {output.files} | {where} |")
    return "\n".join(rows)


def readable(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def links(root: Path, outputs: list[Output]) -> list[str]:
    """Pictures in place where they are served, links to pages; links to files where nothing serves them."""
    lines = []
    for output in outputs:
        path = root / output.path
        shown = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in shown:
            if file.suffix in SHOWN and file.is_file():
                name = file.relative_to(root).as_posix()
                url = _url(path, file, output.hash)
                embedded = file.suffix != ".html" and url.startswith("http")
                lines += ["", f"[{name}]({url})", *(["", f"![{name}]({url})"] if embedded else [])]
    return lines


def _url(path: Path, file: Path, version: str) -> str:
    folder, base = os.environ.get("MELNET_FILES"), os.environ.get("MELNET_FILES_URL")
    if not folder or not base:
        return file.as_uri()
    copy = Path(folder) / version.removesuffix(".dir")
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
        return f"{base}/{copy.name}/{file.relative_to(path).as_posix()}"
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, copy / path.name)
    return f"{base}/{copy.name}/{file.name}"
