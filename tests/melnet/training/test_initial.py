"""Starting from another model: every weight is taken over, singers by their names, and what does not fit is named."""

from dataclasses import replace

import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.model_files import ModelError
from melnet.saved import ModelConfig, TierConfig, build_tier, save_config, save_tier
from melnet.training.initial import start_from

TIER = TierConfig(layers=1, hidden=4)
CONFIG = ModelConfig(
    mel=MelSpec(),
    frames=8,
    cell="gru",
    num_components=2,
    min_sigma=0.02,
    tiers=["tier-1", "tier-2"],
    singers=["anna", "bo"],
    normalisation=Normalisation.identity(32),
)


def built(config, name="tier-1", tier_config=TIER, seed=1):
    """A tier none of whose weights is zero."""
    tier = build_tier(config, name, tier_config, seed=seed)
    rng = np.random.default_rng(seed)
    tier.set_weights([rng.normal(size=weight.shape) for weight in tier.get_weights()])
    return tier


def saved(folder, config, name="tier-1"):
    tier = built(config, name)
    save_config(folder, config)
    save_tier(folder, config, name, TIER, tier)
    return tier


def weights(tier, without=()):
    """Values by path."""
    values = {variable.path: np.array(variable) for variable in tier.variables}
    assert len(values) == len(tier.variables)
    return {path: value for path, value in values.items() if not any(part in path for part in without)}


@pytest.mark.parametrize("name", CONFIG.tiers)
def test_a_tier_takes_all_weights_of_the_same_tier(tmp_path, name):
    given, tier = saved(tmp_path, CONFIG, name), built(CONFIG, name, seed=2)
    louder = replace(CONFIG, normalisation=Normalisation(*np.full((4, 32), 2, np.float32)))
    assert start_from(tmp_path, tier, louder, name) == []
    for one, other in zip(given.get_weights(), tier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_singers_are_known_by_name_and_a_new_one_is_the_mean_of_the_known(tmp_path):
    given = saved(tmp_path, CONFIG)
    config = replace(CONFIG, singers=["aaron", "bo"])
    tier = built(config, seed=2)
    assert start_from(tmp_path, tier, config, "tier-1") == ["aaron"]
    anna, bo = np.array(given.embedding.embeddings)
    np.testing.assert_array_equal(tier.embedding.embeddings, [(anna + bo) / 2, bo])
    mine, theirs = weights(tier, ["singer/embeddings"]), weights(given, ["singer/embeddings"])
    assert mine.keys() == theirs.keys()
    for path, value in theirs.items():
        np.testing.assert_array_equal(mine[path], value)


def test_singers_are_new_to_a_model_that_knows_none(tmp_path):
    """Their embeddings, which are zero at first, make the tier the same for all of them."""
    given = saved(tmp_path, replace(CONFIG, singers=[]))
    tier = build_tier(CONFIG, "tier-1", TIER, seed=2)
    assert start_from(tmp_path, tier, CONFIG, "tier-1") == ["anna", "bo"]
    mine, theirs = weights(tier), weights(given)
    assert [path for path in mine.keys() - theirs.keys() if "singer" not in path] == []
    for path, value in theirs.items():
        np.testing.assert_array_equal(mine[path], value)
    assert not np.array(tier.embedding.embeddings).any()


@pytest.mark.parametrize(
    ("config", "tier_config", "message"),
    [
        ({"mel": MelSpec(n_mels=16), "normalisation": Normalisation.identity(16)}, TIER, "n_mels 32, not 16"),
        ({"mel": MelSpec(fmin=200.0, hop_length=256)}, TIER, "hop_length 512, not 256; fmin 300.0, not 200.0"),
        ({"tiers": ["tier-1"]}, TIER, "tiers 2, not 1"),
        ({"singers": []}, TIER, "singers anna, bo, not none"),
        ({"num_components": 3}, TIER, "tier-1.num_components 2, not 3"),
        (
            {"cell": "lstm"},
            TierConfig(2, 6),
            "tier-1.cell gru, not lstm; tier-1.layers 1, not 2; tier-1.hidden 4, not 6",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, config, tier_config, message):
    saved(tmp_path, CONFIG)
    config = replace(CONFIG, **config)
    tier = build_tier(config, "tier-1", tier_config, seed=2)
    before = tier.get_weights()
    with pytest.raises(ModelError) as error:
        start_from(tmp_path, tier, config, "tier-1")
    assert str(error.value) == f"{tmp_path}: a model of another shape: {message}"
    for one, other in zip(before, tier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_model_is_named(tmp_path):
    saved(tmp_path, CONFIG)
    path = tmp_path / "tier-1.weights.h5"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"tier-1\.weights\.h5: damaged"):
        start_from(tmp_path, built(CONFIG), CONFIG, "tier-1")
