"""A saved model reads back as it was, and anything else is refused by name."""

import json

import numpy as np
import pytest

from melnet.config import Mel, Model, Tier
from melnet.dataset import Normalisation
from melnet.saved import Description, ModelError, build_tier, load, save

BANDS = 4
MODEL = Model(mixture=2, min_sigma=0.05, tiers={"tier-1": Tier(layers=1, hidden=3)})
DESCRIPTION = Description(
    sample_rate=8000,
    mel=Mel(n_fft=512, hop_length=128, n_mels=BANDS, fmin=100.0, fmax=3000.0, floor=1e-5),
    model=MODEL,
    frames=6,
    normalisation=Normalisation(*np.array([[0.1, -3, 5, 7], [1, 2, 3, 1 / 3], [-9] * 4, [9] * 4], np.float32)),
)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, DESCRIPTION, {"tier-1": build_tier(MODEL, "tier-1", BANDS)})
    return tmp_path


def test_round_trip(tmp_path):
    tier = build_tier(MODEL, "tier-1", BANDS)
    save(tmp_path, DESCRIPTION, {"tier-1": tier})
    description, tiers = load(tmp_path)
    assert description.to_dict() == DESCRIPTION.to_dict()
    np.testing.assert_array_equal(description.normalisation.std, DESCRIPTION.normalisation.std)
    for saved, weight in zip(tiers["tier-1"].get_weights(), tier.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, weight)
    assert tiers["tier-1"].min_sigma == 0.05


def test_equal_weights_are_equal_bytes(tmp_path):
    tier = build_tier(MODEL, "tier-1", BANDS)
    twin = build_tier(MODEL, "tier-1", BANDS)
    twin.set_weights(tier.get_weights())
    save(tmp_path / "a", DESCRIPTION, {"tier-1": tier})
    save(tmp_path / "b", DESCRIPTION, {"tier-1": twin})
    for name in ("melnet.json", "tier-1.weights.h5"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_damaged_weights_are_refused(folder):
    path = folder / "tier-1.weights.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tier-1\.weights\.h5: damaged"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=99), "format 99"),
        (lambda content: content.pop("normalisation"), "normalisation"),
        (lambda content: content["mel"].update(n_mels="four"), "n_mels"),
        (lambda content: content["model"].update(cell="gru"), "cell"),
    ],
)
def test_another_description_is_refused(folder, change, message):
    path = folder / "melnet.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"melnet\.json.*{message}"):
        load(folder)


def test_broken_json_and_missing_files_are_refused(folder):
    (folder / "tier-1.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"tier-1\.weights\.h5: no such file"):
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
            for _ in range(200):
                flipped(path, rng)
                with pytest.raises(ModelError, match=path.name):
                    load(folder)
                path.write_bytes(whole)


def test_any_damage_to_a_description_is_refused_or_means_another_model(folder):
    """Never a crash, and never code that runs."""
    rng = np.random.default_rng(1)
    refused = 0
    for path in files(folder):
        if path.suffix == ".json":
            whole = path.read_bytes()
            for _ in range(150):
                what = flipped(path, rng)
                try:
                    load(folder)
                except ModelError as error:
                    refused += 1
                    assert str(folder) in str(error), what
                path.write_bytes(whole)
    assert refused > 100
