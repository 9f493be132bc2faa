"""The performance table of the README, made of bench/results.json: ``python -m bench.table`` prints it."""

import json
from typing import Any

from bench.all import RESULTS


def main() -> None:
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


def table(results: dict[str, Any]) -> str:
    """Markdown: one row per claim, and a line that says on what it was measured."""
    rows = [
        "| claim | measured (lowest to highest round) | target | met | `python -m` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for claim in results["claims"]:
        unit = f" {claim['unit']}" if claim["unit"] else ""
        low, high = claim["spread"]
        spread = f" ({low:.3g} to {high:.3g})" if low != high else ""
        verdict = "yes" if claim["met"] else "**no**"
        rows.append(
            f"| {claim['name']} | {claim['value']:.3g}{unit}{spread} | {claim['target']}{unit} | {verdict} "
            f"| `bench.{claim['module']}` |"
        )
    machine, versions = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join([*rows, "", f"Measured on {machine['cores']} cores of {machine['processor']}, with {packages}."])


if __name__ == "__main__":
    main()
