"""Previews: what a training sings while it runs, and that it changes nothing."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melnet.saved import TierConfig, build_tier, load_config, save_tier
from melnet.singing import Model
from melnet.training.checkpoint import Checkpoint
from stages import preview
from stages.model import model
from stages.parameters import Tier
from stages.paths import CHECKPOINTS, MODELS
from stages.preview import COUNT, Previews, first_tiers
from stages.train import LOGS, train

FOLDER = LOGS / "tier-1/previews"
RESULTS = ("models/tier-1.weights.h5", "models/tiers/tier-1.json", "metrics/train/tier-1.json")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(preview, "SECONDS", 0.4)


def every(params, epochs):
    return params.model_copy(update={"execution": params.execution.model_copy(update={"preview_every": epochs})})


def shown_in_tensorboard():
    """Plugin and step of everything that it finds."""
    loaded = EventAccumulator(str(LOGS / "tier-1/tensorboard/previews")).Reload()
    plugins = ("audio", "images")
    return {
        (name, event.step)
        for name in plugins
        for tag in loaded.PluginTagToContent(name)
        for event in loaded.Tensors(tag)
    }


def test_every_epoch_is_heard_and_seen_and_the_results_are_those_without(workspace):
    without = [Path(name).read_bytes() for name in RESULTS]
    train(every(workspace, 1))
    assert [Path(name).read_bytes() for name in RESULTS] == without

    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Epoch 2", "Epoch 1"]
    assert "audio by griffin-lim" not in page  # the workspace has a vocoder
    for name in re.findall(r'src="(.*?)"', page):
        assert (FOLDER / name).stat().st_size > 1000
    first, second = (soundfile.read(FOLDER / f"epoch-000{epoch}-1.wav") for epoch in (1, 2))
    hop = workspace.mel.hop_length
    assert first[1] == workspace.downsample.sample_rate
    assert len(first[0]) % hop == 0 and 0.2 < len(first[0]) / first[1] < 0.4
    assert np.abs(first[0]).max() == pytest.approx(0.95, abs=1e-3)
    assert not np.array_equal(first[0], second[0])
    assert shown_in_tensorboard() == {("audio", 0), ("audio", 1), ("images", 0), ("images", 1)}

    train(workspace)  # starts afresh, and its previews would begin after epoch 5
    assert not FOLDER.exists()


class Interrupted(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_previews_of_a_killed_training_stay_on_the_page(workspace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("stages.train._logs", lambda *_: [Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            train(every(workspace, 1))
    before = (FOLDER / "epoch-0001-1.wav").read_bytes()
    train(every(workspace, 1))
    assert re.findall(r"<h2>(.*?)</h2>", (FOLDER / "index.html").read_text()) == ["Epoch 2", "Epoch 1"]
    assert (FOLDER / "epoch-0001-1.wav").read_bytes() == before


def previews(params, name):
    """Those of a tier that is not trained."""
    tier_config = TierConfig(**params.model.tiers[name].model_dump())
    checkpoint = Checkpoint(CHECKPOINTS / f"{name}.npz", "a")
    checkpoint.history = [{"val_loss": 1.0}]
    return Previews(name, load_config(MODELS), tier_config, checkpoint, LOGS / name, params.generate, 2)


def after(shown, epoch, seed):
    """The tier whose weights were validated after an epoch, and its preview."""
    tier = build_tier(shown.config, shown.name, TierConfig(layers=1, hidden=6), seed=seed)
    shown.checkpoint.validated = tier.get_weights()
    shown.on_epoch_end(epoch - 1)
    return tier


def test_the_one_compiled_sampler_sings_with_the_weights_of_the_epoch(workspace, monkeypatch):
    """As a model of these weights does that was never used before."""
    shown, sung = previews(workspace, "tier-1"), []
    monkeypatch.setattr(preview, "spectrogram_strip", lambda rows, *_: sung.append(rows[0][1]))
    monkeypatch.setattr(preview, "save", lambda *_: None)  # nor is there a picture for TensorBoard
    after(shown, 1, seed=1)
    assert not sung
    after(shown, 2, seed=1)
    tier = after(shown, 4, seed=2)
    assert not np.array_equal(*sung)
    settings = {"temperature": workspace.generate.temperature, "seed": workspace.generate.seed}
    fresh = Model(shown.config, [tier]).sample(sung[1].shape[1], count=COUNT, **settings)
    np.testing.assert_array_equal(sung[1], fresh)


def test_a_preview_that_fails_is_said_and_ends_nothing(workspace, monkeypatch, capsys):
    monkeypatch.setattr(preview, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    after(previews(workspace, "tier-1"), 2, seed=1)
    assert capsys.readouterr().err == "tier-1: no preview of epoch 2: OSError: disk full\n"
    assert not (FOLDER / "index.html").exists()


def test_griffin_lim_sings_until_there_is_a_vocoder(workspace, write_vocoder):
    for path in MODELS.glob("vocoder.*"):
        path.unlink()
    shown = previews(workspace, "tier-1")
    after(shown, 2, seed=1)
    write_vocoder(MODELS, workspace)
    after(shown, 4, seed=1)
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"audio by ([\w-]+)", page) == ["vocoder", "griffin-lim"]
    assert "vocoder.json: no such file" in page
    first, second = (soundfile.read(FOLDER / f"epoch-000{epoch}-1.wav")[0] for epoch in (2, 4))
    assert not np.array_equal(first, second)


def test_tiers_sing_with_the_earlier_ones_and_not_without(workspace, capsys):
    tiers = {f"tier-{n}": Tier(layers=1, hidden=6) for n in (1, 2, 3)}
    params = workspace.model_copy(update={"model": workspace.model.model_copy(update={"tiers": tiers})})
    model(params)
    config, tier_config = load_config(MODELS), TierConfig(layers=1, hidden=6)
    after(previews(params, "tier-2"), 2, seed=1)
    error = capsys.readouterr().err
    assert error.startswith("tier-2: no preview of epoch 2: ModelError: models/tiers/tier-1.json: ")
    assert error.count("\n") == 1

    sung = after(previews(params, "tier-1"), 2, seed=1)
    assert (FOLDER / "epoch-0002-1.wav").exists()
    save_tier(MODELS, config, "tier-1", tier_config, sung)
    after(previews(params, "tier-2"), 2, seed=2)
    assert (LOGS / "tier-2/previews/epoch-0002-1.wav").exists()


def test_the_first_tiers_draw_what_the_whole_model_draws_there(workspace):
    tiers = {f"tier-{n}": Tier(layers=1, hidden=6) for n in (1, 2, 3)}
    params = workspace.model_copy(update={"model": workspace.model.model_copy(update={"tiers": tiers})})
    model(params)
    config = load_config(MODELS)
    built = [build_tier(config, name, TierConfig(layers=1, hidden=6), seed=n) for n, name in enumerate(config.tiers)]
    whole = Model(config, built).sample(8, count=1)
    for count in (1, 2):
        first, frame_step, band_step = first_tiers(config, count)
        part = Model(first, built[:count]).sample(8 // frame_step, count=1)
        np.testing.assert_allclose(part, whole[:, ::frame_step, ::band_step], rtol=1e-5)
