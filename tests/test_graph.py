"""The real graph, small: from recordings to audio with `dvc repro`, in clones of this project."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from ruamel.yaml import YAML

from tests.imports import modules
from tests.params_file import edit_params
from tests.words import HERE, MADE, PAGES, SOMETIMES, paths

ROOT = Path(__file__).parents[1]
SMALL = {
    "demo": {"minutes": 0.6, "files": 3},
    "slice": {"frames": 20, "block_seconds": 3.0},
    "model": {"num_components": 2, "tiers": {"tier-1": {"layers": 1, "hidden": 8}}},
    "train": {"window_frames": 20, "windows_per_epoch": 64, "epochs": 2},
    "vocoder": {"pitch_steps": 2, "envelope_steps": 2, "hidden": 8, "blocks": 1},
    "generate": {"count": 2, "frames": 30, "measured": 0, "griffin_lim_iterations": 2},
}
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    **{f"GIT_{role}_{what}": "test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def run(folder, *command):
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def started(output):
    """The stages that DVC says it runs."""
    return re.findall(r"Running stage '([^']+)'", output)


def stale(folder):
    """The stages whose dependencies differ from the last run; those after them follow once these have run."""
    return started(run(folder, "dvc", "repro", "--dry"))


def clone(folder):
    """This project as git has it, changes not yet committed included, with small parameters."""
    files = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in files:
        source = ROOT / name
        if source.is_file() and not name.startswith(("metrics/", "dvc.lock", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    edit_params(folder, SMALL, folder / "params.yaml")
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "start")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone in which the graph has run, and is committed."""
    folder = clone(tmp_path_factory.mktemp("graph") / "first clone")
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "first run")
    return folder


@pytest.fixture
def restored(project):
    """The same, put back as it was after the test."""
    yield project
    run(project, "git", "checkout", "--quiet", ".")
    run(project, "git", "clean", "--quiet", "--force")
    run(project, "dvc", "checkout", "--quiet", "--force")


PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


NO_RESULT = YAML(typ="safe").load(ROOT / "dvc.yaml")["vars"][0]["changes_no_result"]
CODE_FOLDERS = {
    Path(name)
    for name in (
        "melnet/baselines",
        "melnet/metrics",
        "melnet/model",
        "melnet/vocoder",
        "stages/demo_voice",
        "stages/report_page",
    )
}


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_modules_that_can_change_its_results(stage):
    """No more, or edits would rerun it for nothing; no less, or its results would be stale."""
    used = {path.parent if path.parent in CODE_FOLDERS else path for path in modules(stage, NO_RESULT)}
    declared = {path for path in PIPELINE[stage]["deps"] if path.startswith(("melnet/", "stages/"))}
    assert declared == {path.as_posix() for path in used}


COMPUTES = {"keras", "librosa", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "soundfile", "soxr", "tensorflow"}


@pytest.mark.parametrize("name", NO_RESULT)
def test_a_module_that_changes_no_result_computes_none(name):
    """It exists, and a script of a stage does not import what arrays are computed with."""
    assert (ROOT / name).exists()
    if name.removeprefix("stages/").removesuffix(".py") in PIPELINE:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        # stages/train.py has the callbacks that show how the training goes.
        assert not names & (COMPUTES - {"keras"} if name == "stages/train.py" else COMPUTES)


def test_it_ends_in_audio_pictures_and_metrics(project):
    for index in range(2):
        info = soundfile.info(project / f"samples/sample-{index:02d}.wav")
        assert (info.samplerate, info.frames) == (24000, 29 * 512)
    for name in (
        "plots/spectrograms.png",
        "plots/waveforms.png",
        "plots/training/tier-1.png",
        "plots/training/vocoder-pitch.png",
    ):
        assert (project / name).read_bytes().startswith(b"\x89PNG")
    assert "sample-01" in (project / "report/index.html").read_text()
    assert (project / "models/README.md").read_text().startswith("# MelNet")
    metrics = {
        name: json.loads((project / f"metrics/{name}.json").read_text())
        for name in ("train/tier-1", "vocoder", "evaluate", "generate")
    }
    assert set(metrics["vocoder"]["test"]) == {"vocoder", "griffin-lim"}
    assert metrics["evaluate"]["nll"] < metrics["evaluate"]["baseline_band_nll"] + 1
    assert metrics["generate"]["frechet_train"] < metrics["generate"]["frechet_band_baseline"]


def test_git_sees_metrics_and_lock_and_no_data(project):
    tracked = run(project, "git", "ls-files").splitlines()
    assert {"dvc.lock", "metrics/train/tier-1.json", "metrics/history/tier-1.csv"} <= set(tracked)
    assert not [
        name
        for name in tracked
        if name.startswith(("data/", "models/", "samples/", "report/", "logs/", "checkpoints/"))
    ]
    assert run(project, "git", "status", "--porcelain") == ""


def test_a_second_run_does_nothing(project):
    assert stale(project) == []
    assert started(run(project, "dvc", "repro")) == []


def test_two_clones_arrive_at_the_same_lock_file(project, tmp_path):
    twin = clone(tmp_path / "second")
    run(twin, "git", "commit", "--quiet", "--allow-empty", "--message", "another commit")
    run(twin, "dvc", "repro")
    assert (twin / "dvc.lock").read_text() == (project / "dvc.lock").read_text()
    # What the page says of git differs, and DVC does not see it.
    assert '"commit": "' in (twin / "report/run.js").read_text()
    assert (twin / "report/run.js").read_text() != (project / "report/run.js").read_text()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": {"learning_rate": 1e-3}}, "train@tier-1"),
        ({"model": {"min_sigma": 0.03}}, "model"),
        ({"mel": {"n_mels": 24}}, "slice"),
        ({"vocoder": {"seed": 7}}, "vocoder"),
        ({"generate": {"seed": 7}}, "generate"),
        ({"evaluate": {"baseline_frames": 500}}, "evaluate"),
        ({"downsample": {"min_seconds": 1.0}}, "downsample"),
    ],
)
def test_a_setting_reruns_from_the_stage_that_uses_it(restored, changes, expected):
    edit_params(restored, changes, restored / "params.yaml")
    # The report shows every setting.
    assert stale(restored) == [expected, "report"]


FINGERPRINT = """
from pathlib import Path
from stages.fingerprint import fingerprint
from stages.parameters import load_params
params = load_params(Path("params.yaml"))
print(fingerprint("train", [params.model, params.train]))
"""


def fingerprint_of_training(folder):
    """The digest by which an unfinished training in a clone is recognised."""
    return run(folder, "env", f"PYTHONPATH={folder}", sys.executable, "-c", FINGERPRINT)


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edit_of_what_is_only_shown_or_said_reruns_nothing_that_computes(restored):
    before = fingerprint_of_training(restored)
    replace(restored / "stages/train.py", "compiling takes up to a minute", "it compiles first")
    replace(restored / "stages/generate.py", "samples of {settings.frames} frames", "spectrograms of {settings.frames}")
    replace(restored / "stages/evaluate.py", "fitting and compiling take up to a minute", "please wait")
    for name in (
        "command",
        "epoch_progress",
        "parameters",
        "preview",
        "progress",
        "execution/parallel",
        "pitch",
        "slice",
        "vocoder",
    ):
        with (restored / f"stages/{name}.py").open("a", encoding="utf-8") as file:
            file.write("# a remark\n")
    edit_params(restored, {"execution": {"preview_every": 1}}, restored / "params.yaml")
    assert stale(restored) == []
    replace(restored / "stages/report.py", "One page to hear", "A page to hear")
    replace(restored / "stages/figures.py", '"magma"', '"viridis"')
    replace(restored / "stages/report_page/templates/page.css", "color:", "color :")
    edit_params(restored, {"report": {"recordings": 3}}, restored / "params.yaml")
    assert stale(restored) == ["plots", "report"]
    assert fingerprint_of_training(restored) == before


def test_an_edit_of_the_model_reruns_training_and_voids_its_checkpoint(restored):
    before = fingerprint_of_training(restored)
    replace(restored / "melnet/model/lstm.py", "ops.tanh(", "ops.softsign(")
    assert "train@tier-1" in stale(restored)
    assert fingerprint_of_training(restored) != before


def test_other_content_of_the_initial_model_reruns_training(restored):
    base = restored.parent / "base"
    shutil.copytree(restored / "models", base)
    edit_params(restored, {"train": {"initial_model": "../base"}}, restored / "params.yaml")
    assert "starting from the weights of ../base" in run(restored, "dvc", "repro", "train")
    assert "train@tier-1" not in stale(restored)
    with (base / "tiers/tier-1.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert "train@tier-1" in stale(restored)


def test_another_recording_reruns_from_downsample(restored):
    corpus = restored.parent / "corpus"
    shutil.copytree(restored / "data/demo", corpus, dirs_exist_ok=True)
    edit_params(restored, {"corpus": {"path": "../corpus"}}, restored / "params.yaml")
    run(restored, "dvc", "repro", "slice")
    before = splits(restored)
    song, rate = soundfile.read(corpus / "song-01.wav")
    soundfile.write(corpus / "one more.wav", song[::-1], rate)  # as it is, it would be a duplicate
    assert sorted(stale(restored)) == ["downsample", "report", "tracks"]
    assert started(run(restored, "dvc", "repro", "slice")) == ["downsample", "slice"]
    after = splits(restored)
    assert {recording for recording, _ in after} == {recording for recording, _ in before} | {"one more.wav"}
    assert all(after[key] == split for key, split in before.items())


def splits(folder):
    from melnet.data.shards import Shards

    names = ("train", "valid", "test")
    return {key: split for split in names for key in Shards(folder / "data/shards" / split).positions()}


def test_an_experiment_reruns_training_and_dvc_tells_the_difference(restored):
    settings = ("--set-param", "train.epochs=1", "--set-param", "train.learning_rate=1e-3")
    output = run(restored, "dvc", "exp", "run", "evaluate", *settings)
    assert started(output) == ["train@tier-1", "evaluate"]
    assert stale(restored) == ["generate", "plots", "report"]
    assert (restored / "metrics/history/tier-1.csv").read_text().count("\n") == 2
    difference = json.loads(run(restored, "dvc", "metrics", "diff", "--json"))
    nll = difference["metrics/evaluate.json"]["nll"]
    assert nll["old"] != nll["new"]
    assert "metrics/train/tier-1.json" in run(restored, "dvc", "metrics", "show")
    page = restored / "dvc_plots/index.html"
    assert page.as_uri() in run(restored, "dvc", "plots", "show")
    text = page.read_text()
    for title in ("Loss", "history_tier-1_csv", "spectrograms.png", "waveforms.png"):
        assert title in text


def test_versions_can_be_pushed_and_fetched(project, tmp_path):
    run(project, "dvc", "remote", "add", "--local", "--force", "--default", "store", str(tmp_path / "store"))
    run(project, "dvc", "push")
    copy = tmp_path / "copy"
    run(tmp_path, "git", "clone", "--quiet", str(project), str(copy))
    run(copy, "dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    run(copy, "dvc", "pull")
    name = "models/tier-1.weights.h5"
    assert (copy / name).read_bytes() == (project / name).read_bytes()
    assert stale(copy) == []


def test_documented_commands_run_as_they_stand(restored):
    for command in HERE:
        run(restored, "bash", "-c", command)


def test_what_the_documents_say_is_made_is_there(project):
    named = {path for page in PAGES for path in paths(page.read_text(encoding="utf-8"), MADE)} - SOMETIMES
    assert not [path for path in sorted(named) if not list(project.glob(path.removesuffix("/")))]
