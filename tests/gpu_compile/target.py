"""The GPU that programs are compiled for, which need not be there, and the figures of a compiled program."""

from pathlib import Path

import jax
from jax.experimental import topologies

from tests.gpu_compile import hlo


def shapes_on(gpu):
    """A function that gives a tensor's shape and type as an input of a program for a GPU, such as ``h100``."""
    description = Path(__file__).with_name(f"{gpu}.textproto").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=description, topology="1x1x1")
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def shaped(shape, dtype="float32"):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return shaped


def figures(program, repeats=1):
    """Kernels of each of ``repeats`` equal parts of a program, its memory in bytes, and its transfers to the host."""
    text, memory = program.as_text(), program.memory_analysis()
    return {
        "kernels": hlo.kernels(text) / repeats,
        "temporary": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "host_transfers": hlo.host_transfers(text),
    }
