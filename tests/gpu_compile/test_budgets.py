"""Kernels and memory of training and sampling, compiled for GPUs that are not there; ``make test-gpu-compile`` runs it.

A figure changes only with the model's code or the libraries, so it is kept in .gpu-compile/ under a hash of both.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from melnet.data.atomic import atomic_write
from tests.gpu_compile import hlo
from tests.gpu_compile.sizes import SIZES

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".gpu-compile"
LIBRARIES = KEPT / "libraries"
# What the compiled programs and their figures depend on.
SOURCES = [
    ROOT / "melnet/backend.py",
    ROOT / "melnet/sampling.py",
    ROOT / "melnet/training/fit.py",
    *sorted((ROOT / "melnet/model").glob("*.py")),
    *(path for path in sorted(Path(__file__).parent.iterdir()) if path.is_file() and path != Path(__file__)),
    ROOT / "requirements.lock",
    ROOT / "requirements-gpu-compile.lock",
]
# Without autotuning, which needs the GPU. LLVM's expensive passes change neither kernels nor memory.
FLAGS = "--xla_gpu_autotune_level=0 --xla_llvm_disable_expensive_passes=true --xla_gpu_cuda_data_dir="
GIB = 2**30


class Budget(NamedTuple):
    """Most kernels of a training step or of a sampled frame, and most bytes of temporary memory."""

    kernels: int
    temporary: float


BUDGETS = {
    ("training_step", "h100", "reference"): Budget(3000, 1.25 * GIB),
    ("training_step", "a100", "reference"): Budget(3000, 1.25 * GIB),
    ("training_step", "h100", "large"): Budget(8000, 37 * GIB),
    ("training_step", "a100", "large-recompute"): Budget(8000, 30 * GIB),
    ("sampling_chunk", "h100", "reference"): Budget(400, 0.1 * GIB),
}


@pytest.fixture(scope="module")
def figures():
    """What was measured for each budget; two programs are compiled at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BUDGETS, pool.map(measured, *zip(*BUDGETS, strict=True)), strict=True))


def measured(program, gpu, size):
    digest = hashlib.sha256(f"{SIZES[size]} {FLAGS} {sys.version}".encode())
    for path in SOURCES:
        digest.update(path.read_bytes())
    kept = KEPT / f"results/{program}-{gpu}-{size}-{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        content = compiled(program, gpu, size)
        for old in kept.parent.glob(f"{program}-{gpu}-{size}-*.json"):
            old.unlink()
        with atomic_write(kept) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def compiled(program, gpu, size):
    """Output of a process of its own, as TensorFlow and XLA's flags of other tests have no place in it."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(LIBRARIES)]),
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{FLAGS}{LIBRARIES / 'nvidia/cuda_nvcc'}",
    }
    command = [sys.executable, "-m", f"tests.gpu_compile.{program}", gpu, size]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.gpu_compile
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("compilation", list(BUDGETS), ids=" ".join)
def test_a_program_keeps_its_budget(compilation, figures):
    budget, found = BUDGETS[compilation], figures[compilation]
    name, memory = " ".join(compilation), found["temporary"] / GIB
    print(f"{name}: {found['kernels']:.0f} kernels, {memory:.2f} GiB of temporary memory")
    assert found["kernels"] <= budget.kernels
    assert found["temporary"] <= budget.temporary
    assert not found["host_transfers"]


def test_the_compiler_belongs_to_the_locked_jax():
    def locked(lock):
        return dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.M))

    compiler = locked("requirements-gpu-compile.lock")
    jax = locked("requirements.lock")["jax"]
    assert compiler["jax-cuda12-plugin"] == compiler["jax-cuda12-pjrt"] == jax


PROGRAM = """
HloModule step, is_scheduled=true

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %next = s32[] fusion(%i), kind=kLoop, calls=%fused_add
  %y = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused_tanh
  ROOT %t = (s32[], f32[4]{0}) tuple(%next, %y)
}

ENTRY %main (a: f32[4], b: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %gemm = (f32[4]{0}, s8[16]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
  %c = f32[4]{0} get-tuple-element(%gemm), index=0
  %zero = s32[] constant(0)
  %t.1 = (s32[], f32[4]{0}) tuple(%zero, %c)
  %loop = (s32[], f32[4]{0}) while(%t.1), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %end = f32[4]{0} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    assert hlo.kernels(PROGRAM) == 1 + 5 * 2


def test_a_loop_that_asks_the_host_is_refused():
    with pytest.raises(ValueError, match="a loop without a known number of passes: %loop = "):
        hlo.kernels(PROGRAM.replace("known_trip_count", "something_else"))


@pytest.mark.parametrize(
    "line",
    [
        '%c.1 = f32[4]{0} custom-call(%a), custom_call_target="xla_ffi_python_gpu_callback"',
        "%o = token[] outfeed(%c, %token)",
        "%h = f32[4]{0:S(5)} copy(%c)",
    ],
)
def test_a_transfer_to_the_host_is_found(line):
    assert hlo.host_transfers(PROGRAM) == []
    assert hlo.host_transfers(PROGRAM.replace("  ROOT %end", f"  {line}\n  ROOT %end")) == [line]
