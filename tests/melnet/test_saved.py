"""A saved model reads back as it was, and anything else is refused by name."""

import json

import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.saved import ModelConfig, ModelError, TierConfig, build_tier, load, save_config, save_tier

BANDS = 4
TIERS = {"tier-1": TierConfig(layers=1, hidden=3), "tier-2": TierConfig(layers=2, hidden=2, feature_layers=1)}
CONFIG = ModelConfig(
    mel=MelSpec(sample_rate=8000, n_fft=512, hop_length=128, n_mels=BANDS, fmin=100.0, fmax=3000.0, floor=1e-5),
    frames=6,
    cell="gru",
    num_components=2,
    min_sigma=0.05,
    tiers=list(TIERS),
    singers=["Anna", "Bo"],
    normalisation=Normalisation(*np.array([[0.1, -3, 5, 7], [1, 2, 3, 1 / 3], [-9] * 4, [9] * 4], np.float32)),
)


def save(folder, tiers=None):
    save_config(folder, CONFIG)
    for name, settings in TIERS.items():
        tier = (tiers or {}).get(name) or build_tier(CONFIG, name, settings)
        save_tier(folder, CONFIG, name, settings, tier)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path)
    return tmp_path


def test_round_trip(tmp_path):
    built = {name: build_tier(CONFIG, name, settings) for name, settings in TIERS.items()}
    save(tmp_path, built)
    config, tiers = load(tmp_path)
    assert config.to_json() == CONFIG.to_json()
    np.testing.assert_array_equal(config.normalisation.std, CONFIG.normalisation.std)
    assert [(tier.min_sigma, tier.cell, tier.singers) for tier in tiers] == [(0.05, "gru", 2)] * 2
    assert [len(tier.features) for tier in tiers] == [0, 1]
    for tier, saved in zip(built.values(), tiers, strict=True):
        for weight, again in zip(tier.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(again, weight)


def test_equal_weights_are_equal_bytes(tmp_path):
    built = {name: build_tier(CONFIG, name, settings) for name, settings in TIERS.items()}
    twins = {name: build_tier(CONFIG, name, settings) for name, settings in TIERS.items()}
    for name, tier in built.items():
        twins[name].set_weights(tier.get_weights())
    save(tmp_path / "a", built)
    save(tmp_path / "b", twins)
    assert len(files(tmp_path / "a")) == 5
    for one, other in zip(files(tmp_path / "a"), files(tmp_path / "b"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_tier_of_another_model_is_refused(folder):
    """As when melnet.json was written anew, for other data, and not every tier was trained again."""
    path = folder / "melnet.json"
    path.write_text(path.read_text().replace('"frames": 6', '"frames": 8'))
    with pytest.raises(ModelError, match=r"tiers/tier-1\.json: trained for another .*melnet\.json"):
        load(folder)


def test_weights_of_another_tier_are_refused(folder):
    """Even with a hash that fits: the shapes have to be those of the settings."""
    path = folder / "tiers/tier-1.json"
    content = json.loads(path.read_text()) | {"hidden": 4}
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"tier-1\.weights\.h5: not the weights of TierConfig\(layers=1, hidden=4"):
        load(folder)


def test_models_of_the_first_format_are_refused(folder):
    """They had the weights' hashes and all settings in melnet.json, and no file for each tier."""
    (folder / "melnet.json").write_text(json.dumps({"format": 1, "model": {}, "weights_sha256": {}}))
    with pytest.raises(ModelError, match=r"melnet\.json: format 1, but this version reads format 3; train again"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("melnet.json", lambda content: content.update(format=99), "format 99"),
        ("melnet.json", lambda content: content.pop("normalisation"), "normalisation"),
        ("melnet.json", lambda content: content["normalisation"]["mean"].pop(), "shape|bands"),
        ("melnet.json", lambda content: content["mel"].update(n_mels="four"), "n_mels"),
        ("melnet.json", lambda content: content.update(cell="rnn"), "cell"),
        ("melnet.json", lambda content: content.update(tiers=["tier-2"]), "tier-2"),
        ("melnet.json", lambda content: content.update(speed=1), "speed"),
        ("tiers/tier-1.json", lambda content: content.update(format=1), "format 1"),
        ("tiers/tier-1.json", lambda content: content.update(hidden="3"), "hidden"),
        ("tiers/tier-1.json", lambda content: content.pop("weights_sha256"), "weights_sha256"),
    ],
)
def test_another_config_is_refused(folder, name, change, message):
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"{path.name}.*({message})"):
        load(folder)


def test_broken_json_and_missing_files_are_refused(folder):
    (folder / "tier-2.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"tier-2\.weights\.h5: No such file"):
        load(folder)
    (folder / "tiers/tier-1.json").unlink()
    with pytest.raises(ModelError, match=r"tiers/tier-1\.json: no such file; the model is not trained yet"):
        load(folder)
    (folder / "melnet.json").write_text("{")
    with pytest.raises(ModelError, match=r"melnet\.json"):
        load(folder)
    (folder / "melnet.json").unlink()
    with pytest.raises(ModelError, match=r"melnet\.json: no such file"):
        load(folder)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flipped(path, rng):
    """Flip a bit, or cut the file off; what was done."""
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    if rng.random() < 0.1:
        del content[at:]
    else:
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return f"{path.name} at byte {at}"


def test_any_damage_to_weights_is_refused(folder):
    rng = np.random.default_rng(0)
    for path in files(folder):
        if path.suffix == ".h5":
            whole = path.read_bytes()
            for _ in range(50):
                flipped(path, rng)
                with pytest.raises(ModelError, match=path.name):
                    load(folder)
                path.write_bytes(whole)


def test_any_damage_to_a_config_is_refused_or_means_another_model(folder):
    """Never a crash, and never code that runs."""
    rng = np.random.default_rng(1)
    refused = 0
    for path in files(folder):
        if path.suffix == ".json":
            whole = path.read_bytes()
            for _ in range(100):
                what = flipped(path, rng)
                try:
                    load(folder)
                except ModelError as error:
                    refused += 1
                    assert str(folder) in str(error), what
                path.write_bytes(whole)
    assert refused > 60
