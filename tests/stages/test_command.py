"""The command line of the stages."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.command import main
from stages.execution.parallel import parallel

ROOT = Path(__file__).parents[2]
STAGES = ("demo", "downsample", "slice", "train", "evaluate", "generate")


def run(stage, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("stage", STAGES[:3])
def test_help_explains_a_stage(stage, tmp_path):
    result = run(stage, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"python -m stages.{stage}" in result.stdout
    assert "data/" in result.stdout


def test_a_wrong_parameter_is_one_line_and_nothing_is_made(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  frames: 50 ", "  frames: 0 "))
    result = run("demo", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "demo: params.yaml: slice.frames: Input should be greater than or equal to 1 (it is 0)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_corpus_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("data/demo ", "my/songs "))
    result = run("downsample", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("downsample: corpus.path: my/songs is not a folder")


class ResourceExhaustedError(Exception):
    """As TensorFlow's, which is no OSError."""


def test_a_full_disk_is_one_line_whoever_says_so(tmp_path, monkeypatch):
    def stage(params):
        place = "logs/tensorboard/train/events.1"
        raise ResourceExhaustedError(f"{{{{function_node __wrapped__}}}} {place}; No space left on device\n\tFailed to")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["stages/train.py"])
    with pytest.raises(SystemExit) as ended:
        main(stage, "")
    message = str(ended.value)
    assert message.startswith("train: logs/tensorboard/train/events.1; no space left on device; ")
    assert "\n" not in message
    with pytest.raises(ZeroDivisionError):
        main(lambda params: 1 / 0, "")


@pytest.mark.parametrize("stage", ["demo", "downsample", "slice"])
def test_stages_that_need_no_tensorflow_do_not_import_it(stage, tmp_path):
    code = f"import sys, stages.{stage}; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'jax')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def square(x):
    if x == 13:
        raise ValueError("thirteen")
    return x * x


def test_parallel_keeps_the_order_and_passes_errors_on():
    assert list(parallel(square, range(12), total=12, label="squares", unit="numbers")) == [x * x for x in range(12)]
    with pytest.raises(ValueError, match="thirteen"):
        list(parallel(square, range(20), total=20, label="squares", unit="numbers"))
