"""Files and folders that the user has no right to: named, and what is there stays."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from melnet.data.shards import ShardError, Shards
from stages.command import StageError
from stages.corpus.manifest import MANIFEST
from stages.downsample import downsample
from stages.parameters import Params, load_params
from stages.paths import CLEAN, SHARDS
from stages.slice import slice_recordings

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def project(monkeypatch):
    """A project after `slice` that everybody may look at, as tmp_path is not, and its parameters."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    for number in range(2):
        path = Path(f"corpus/part {number}/{number}.wav")
        path.parent.mkdir(parents=True)
        soundfile.write(path, rng.normal(0, 0.1, 24000 * 12), 24000)
    values = load_params(ROOT / "params.yaml")
    params = Params.model_validate({**values.model_dump(), "corpus": {"path": "corpus"}})
    downsample(params)
    slice_recordings(params)
    yield params
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody():
    """What follows is done by a user without rights, as most users are."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    os.setegid(0)


def contents():
    os.seteuid(os.getuid())  # to look at what was closed
    return {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("stage", "target"), [(downsample, CLEAN), (slice_recordings, SHARDS)])
def test_a_folder_that_must_not_be_written_is_named(project, request, stage, target):
    before = contents()
    Path("data").chmod(0o555)
    request.getfixturevalue("as_nobody")
    with pytest.raises(PermissionError) as error:
        stage(project)
    assert str(error.value) == f"[Errno 13] Permission denied: '{target}'"
    assert contents() == before


def test_unreadable_recordings_and_folders_are_rejected_with_their_reason(project, request):
    shutil.copytree("corpus/part 0", "corpus/part 2")
    Path("corpus/part 0/0.wav").chmod(0)
    Path("corpus/part 1").chmod(0)
    Path("data").chmod(0o777)
    for path in Path("data").rglob("*"):
        path.chmod(0o777)
    request.getfixturevalue("as_nobody")
    downsample(project)
    reasons = {row["path"]: row["reason"] for row in pq.read_table(CLEAN / MANIFEST).to_pylist()}
    assert reasons == {
        "part 0/0.wav": "cannot be read: Permission denied",
        "part 1": "folder cannot be read: Permission denied",
        "part 2/0.wav": None,
    }


@pytest.mark.parametrize(
    ("closed", "stage", "error", "words"),
    [
        ("corpus", downsample, OSError, "Permission denied: 'corpus'"),
        ("data/24k/part 1/1.flac", slice_recordings, StageError, "part 1/1.flac: cannot be read: Permission denied"),
        ("data/24k/manifest.parquet", slice_recordings, StageError, "manifest.parquet cannot be read"),
        ("data/shards/train/part-00000.parquet", Shards, ShardError, "part-00000.parquet: cannot be read: Permission"),
        ("data/shards/train/index.json", Shards, ShardError, "index.json: cannot be read: Permission denied"),
    ],
)
def test_unreadable_inputs_end_a_stage_by_name(project, request, closed, stage, error, words):
    before = contents()
    Path("data").chmod(0o777)
    Path(closed).chmod(0)
    request.getfixturevalue("as_nobody")
    with pytest.raises(error) as raised:
        stage(SHARDS / "train" if stage is Shards else project)
    assert words in str(raised.value)
    assert contents() == before
