"""`melnet` by itself: built as a wheel and used without `stages`, `pipeline`, DVC, Prefect and progress bars."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABSENT = ("stages", "pipeline", "dvc", "dvclive", "prefect", "tqdm")
# Tests of melnet that take seconds only: data on disk, the model on disk, the order of tiers.
QUICK = ("data", "audio/test_mel.py", "test_saved.py", "model/test_multiscale.py")

# Imported when Python starts: packages that are not to be there cannot be imported.
BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here")
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh virtual environment with `melnet` from the wheel and the locked libraries; its Python."""
    folder = tmp_path_factory.mktemp("alone")
    source = folder / "source"
    for name in ("melnet", "stages", "pipeline"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        folder,
        ".",
    ]
    subprocess.run([sys.executable, *build], cwd=source, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    purelib = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(purelib, capture_output=True, text=True, check=True).stdout.strip())
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site, [name for name in file.namelist() if name.startswith("melnet/")])
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport absent\n")
    (site / "absent.py").write_text(BLOCK)
    tests = folder / "tests"
    shutil.copytree(ROOT / "tests/melnet", tests / "melnet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/weights.py", tests)
    (tests / "conftest.py").write_text(
        "import numpy, pytest\n@pytest.fixture\ndef rng(): return numpy.random.default_rng(0)\n"
    )
    return python, folder


def run(environment, *arguments):
    python, folder = environment
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, *arguments], cwd=folder, env=plain, capture_output=True, text=True)


def test_every_module_imports_alone(environment):
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "melnet").rglob("*.py")]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name.removesuffix('.__init__'))"
    result = run(environment, "-c", f"{code}\nimport melnet; print(melnet.__file__)")
    assert result.returncode == 0, result.stderr[-2000:]
    assert str(environment[1]) in result.stdout
    assert "is not installed here" in run(environment, "-c", "import dvc").stderr


def test_its_tests_pass_alone(environment):
    tests = [f"tests/melnet/{name}" for name in QUICK]
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-x", "-k", "not damage")
    result = run(environment, "-m", "pytest", *options, *tests)
    assert result.returncode == 0, result.stdout[-3000:]


def test_no_test_of_melnet_needs_the_other_layers():
    for path in (ROOT / "tests/melnet").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        imports = [line for line in lines if line.split()[:1] in (["from"], ["import"])]
        assert not [line for line in imports if line.split()[1].partition(".")[0] in ABSENT], path
