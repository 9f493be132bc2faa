"""No space, no permission, a file system that is gone: one line that names the path, and what was there stays."""

import shutil
import subprocess
import sys

import pytest

from .conftest import BOUNDED, ENVIRONMENT, STAGES, tree

FREE = {"nothing": 0, "a little": 60_000}


@pytest.fixture
def small_disk(tmp_path):
    """Makes a tmpfs of so many bytes."""
    mounted = []

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        if made is None or made.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {made.stderr.strip() if made else 'no mount'}")
        mounted.append(folder)
        assert folder.is_mount()  # what is filled is never a disk that others use
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(folder, stage, **options):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *([] if stage != "train" else tiers(folder))],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **options,
    )


def tiers(folder):
    """What dvc.yaml says behind the stage's name."""
    return ["tier-1"] if "stages.train $" in (folder / "dvc.yaml").read_text() else []


def check_message(result, stage, *words):
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{stage}: ")
    for word in words:
        assert word in last
    return last


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("stage", ["demo", *STAGES] if BOUNDED else ["demo", *STAGES, "evaluate"])
def test_a_full_disk_is_named_and_nothing_is_lost(undisturbed, small_disk, stage, free):
    if BOUNDED and stage == "train":
        pytest.skip("takes too long for the bounded form")
    folder = small_disk("disk", "200m") / "project"
    shutil.copytree(undisturbed.finished, folder, symlinks=True, ignore=shutil.ignore_patterns(".dvc", "logs"))
    before = tree(folder)
    filler = folder.parent / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - FREE[free]))
    target = {"demo": "data/demo", "downsample": "data/24k", "slice": "data/shards", "generate": "samples"}.get(stage)
    result = run(folder, stage)
    if stage == "evaluate" and result.returncode == 0:
        return  # a few kilobytes are all it needs
    message = check_message(result, stage, *([target] if target else []), "no space left on ")
    print(message)
    assert tree(folder) == before
    filler.unlink()
    again = run(folder, stage)
    assert again.returncode == 0, again.stderr


def test_a_corpus_whose_file_system_is_gone_is_named(undisturbed, small_disk, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(undisturbed.finished, folder, symlinks=True)
    mounted = small_disk("archive", "100m")
    shutil.copytree(folder / "data/demo", mounted / "demo")
    parameters = folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("path: data/demo", f"path: {mounted / 'demo'}"))
    before = tree(folder)
    subprocess.run(["umount", str(mounted)], check=True)
    result = run(folder, "downsample")
    check_message(result, "downsample", str(mounted / "demo"), "does not exist")
    assert tree(folder) == before
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
