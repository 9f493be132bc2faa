"""Stage `plots`: pictures of a finished run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melnet.errors import MelnetError
from stages.parameters import load_params
from stages.paths import PARAMS, PLOTS, SPECTROGRAMS
from stages.plots import plots


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch):
    """A copy of a finished run to work in, which is the current directory; its parameters."""
    shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return load_params(PARAMS)


def test_pictures_are_made_and_equal_runs_have_equal_ones(run):
    plots(run)
    names = ["spectrograms.png"]
    names += [f"training/{name}.png" for name in ("tier-1", "vocoder-envelopes", "vocoder-pitch")]
    names += ["waveforms.png"]
    assert sorted(path.relative_to(PLOTS).as_posix() for path in PLOTS.rglob("*.png")) == names
    for name in names:
        assert np.asarray(Image.open(PLOTS / name)).std() > 10
    # Their numbers are the same, their units are not.
    assert len({(PLOTS / name).read_bytes() for name in names}) == len(names)
    before = [(PLOTS / name).read_bytes() for name in names]
    plots(run)
    assert [(PLOTS / name).read_bytes() for name in names] == before


def test_missing_and_damaged_samples_are_named(run):
    SPECTROGRAMS.write_bytes(SPECTROGRAMS.read_bytes()[:-50])
    with pytest.raises(MelnetError, match=r"samples/spectrograms\.parquet: damaged or not a file of samples"):
        plots(run)
    Path(SPECTROGRAMS).unlink()
    with pytest.raises(MelnetError, match=r"samples/spectrograms\.parquet: no such file; the stage generate"):
        plots(run)
