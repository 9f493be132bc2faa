"""The two locks: the same versions, one with CUDA's libraries, and each all that its packages require."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = {False: ROOT / "requirements.lock", True: ROOT / "requirements-gpu.lock"}
with_gpu = pytest.mark.parametrize("gpu", LOCKS)
# What TensorFlow and JAX load from wheels, beside the driver.
CUDA = {"cublas", "cuda-cupti", "cuda-nvcc", "cuda-runtime", "cudnn", "cufft", "cusolver", "cusparse", "nccl"}


def pins(gpu):
    """The lines of a lock that name a package, as requirements."""
    lines = re.findall(r"^(\w\S*==[^\\\n]+)", LOCKS[gpu].read_text(encoding="utf-8"), re.M)
    return [Requirement(line) for line in lines]


@with_gpu
def test_every_package_has_hashes_and_no_line_names_an_index(gpu):
    text = LOCKS[gpu].read_text(encoding="utf-8")
    assert "://" not in text
    entries = [line for line in re.sub(r"\\\n", "", text).splitlines() if not re.match(r"\s*#", line)]
    assert len(entries) == len(pins(gpu))
    assert all(re.fullmatch(r"\w\S*==[^-]+(\s+--hash=sha256:[0-9a-f]{64})+", entry) for entry in entries)


def test_the_lock_for_gpus_is_the_other_with_cuda_libraries():
    cpu, gpu = ({str(pin) for pin in pins(with_gpu)} for with_gpu in LOCKS)
    added = {Requirement(pin).name for pin in gpu - cpu}
    assert cpu <= gpu
    assert {f"nvidia-{library}-cu12" for library in CUDA} <= added
    assert {"jax-cuda12-plugin", "jax-cuda12-pjrt"} <= added
    assert all(re.fullmatch(r"nvidia-.+-cu12|jax-cuda12-\w+", name) for name in added)


@with_gpu
def test_a_lock_satisfies_what_its_packages_require(gpu):
    """As far as their metadata is installed here: TensorFlow's and JAX's have the ranges of the CUDA libraries."""
    here = default_environment()
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins(gpu)
        if pin.marker is None or pin.marker.evaluate(here)
    }
    extras = {"tensorflow": {"and-cuda"}, "jax": {"cuda12"}} if gpu else {}
    checked = 0
    for name in pinned:
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            wanted = [here | {"extra": extra} for extra in extras.get(name, ())] + [here | {"extra": ""}]
            if requirement.marker and not any(map(requirement.marker.evaluate, wanted)):
                continue
            version = pinned.get(canonicalize_name(requirement.name))
            assert version, f"{name} requires {requirement}, which is not in {LOCKS[gpu].name}"
            assert requirement.specifier.contains(version, prereleases=True), f"{name} requires {requirement}"
            checked += 1
    assert checked > 200
