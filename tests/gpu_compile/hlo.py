"""Kernels and host transfers of a compiled program, counted in its optimised HLO."""

import re

# Instructions that name memory or a value and start nothing.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "partition-id", "replica-id"}
HOST = re.compile(r"\b(?:infeed|outfeed|send|recv|send-done|recv-done)\(|callback|annotate_device_placement|S\(5\)")


def computations(text):
    """The instructions of each computation, and the name of the entry."""
    found, entry, name = {}, None, None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.-]+) .*->.*\{$", line)
        if header:
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            name = None
        elif name and line.strip():
            found[name].append(line.strip())
    return found, entry


def kernels(text):
    """Kernels and library calls of one run; the body of a loop counts as often as it runs.

    Raises
    ------
    ValueError
        A loop whose number of passes is not known: the GPU would wait for the host in each.
    """
    found, entry = computations(text)

    def count(name):
        return sum(map(started, found[name]))

    def started(line):
        operation = re.match(r"(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(", line)[1]
        if operation in FREE or operation.endswith(("-done", "-update")):
            return 0
        if operation == "while":
            passes = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            if not passes:
                raise ValueError(f"a loop without a known number of passes: {line}")
            return int(passes[1]) * count(re.search(r"body=%?([\w.-]+)", line)[1])
        if operation in ("call", "async-start"):
            return count(re.search(r"(?:to_apply|calls)=%?([\w.-]+)", line)[1])
        if operation == "conditional":
            raise ValueError(f"a condition whose branches cannot be counted: {line}")
        return 1

    return count(entry)


def host_transfers(text):
    """Instructions that exchange data with the host."""
    return [line.strip() for line in text.splitlines() if HOST.search(line)]
