"""The modules of this project that a stage's results depend on, found by following its imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported(path):
    """Files of this project that the module at ``path`` imports anywhere in it, as paths below the project."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = Path(*name.split(".")).with_suffix(".py")
            if (ROOT / file).is_file() and file.parts[0] in ("melnet", "stages"):
                found.add(file)
    return found


def changes_no_result(path, listed):
    """Whether a module, or a folder above it, is listed as changing no result."""
    return any(name in listed for name in (path.as_posix(), *(parent.as_posix() for parent in path.parents)))


def modules(stage, listed):
    """Modules that a stage's script and what it imports lead to, without those that change no result."""
    script = Path(f"stages/{stage}.py")
    found, pending = set(), [script]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        pending += [other for other in imported(path) if not changes_no_result(other, listed)]
    return found if not changes_no_result(script, listed) else found - {script}
