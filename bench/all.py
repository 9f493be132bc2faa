"""Run benchmarks, one after the other, and write their claims to a file.

    python -m bench.all [MODULE ...] [--results FILE]

Without modules all are run, for bench/results.json; bench/singing.json is that of `stream` and `live`. The file also
has the processor, the number of cores and the versions of the packages that the figures depend on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.common import ENVIRONMENT, ROOT

RESULTS, SINGING = ROOT / "bench/results.json", ROOT / "bench/singing.json"
NOT_BENCHMARKS = {"__init__", "all", "common", "scale", "table"}
PACKAGES = ("numpy", "tensorflow", "keras", "librosa", "pyarrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = {path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")} - NOT_BENCHMARKS
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.modules) - every:
        parser.error(f"{min(unknown)} is none of {', '.join(sorted(every))}")
    modules = options.modules or sorted(every)
    claims = [{"module": module, **claim} for module in modules for claim in run(module)]
    content = {"machine": machine(), "versions": versions(), "claims": claims}
    options.results.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = [claim["name"] for claim in claims if not claim["met"]]
    print(f"{options.results}: {len(claims)} claims, {len(claims) - len(missed)} met")
    for name in missed:
        print(f"NOT MET: {name}")


def run(module: str) -> list[dict[str, object]]:
    """Run a benchmark and show its output; return its claims, which are the last line."""
    print(f"--- {module}", flush=True)
    command = [sys.executable, "-m", f"bench.{module}"]
    line = ""
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"bench.{module} ended with status {process.returncode}")
    claims: list[dict[str, object]] = json.loads(line)
    return claims


def machine() -> dict[str, object]:
    """The processor, and the number of cores that this process may use."""
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0))}


def _processor() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


if __name__ == "__main__":
    main()
