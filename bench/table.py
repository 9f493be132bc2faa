"""The performance tables of the README: ``python -m bench.table`` prints them."""

import json
from typing import Any

from bench.all import RESULTS, SINGING


def main() -> None:
    for path in (RESULTS, SINGING):
        print(table(json.loads(path.read_text(encoding="utf-8"))), end="\n\n")


def table(results: dict[str, Any]) -> str:
    """Markdown: one row per claim, and a line with the machine and the versions."""
    rows = [
        "| claim | measured (lowest to highest round) | target | met | `python -m` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for claim in results["claims"]:
        unit = f" {claim['unit']}" if claim["unit"] else ""
        low, high = claim["spread"]
        spread = f" ({_number(low)} to {_number(high)})" if low != high else ""
        verdict = "yes" if claim["met"] else "**no**"
        rows.append(
            f"| {claim['name']} | {_number(claim['value'])}{unit}{spread} | {claim['target']}{unit} | {verdict} "
            f"| `bench.{claim['module']}` |"
        )
    machine, versions = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join([*rows, "", f"Measured on {machine['cores']} cores of {machine['processor']}, with {packages}."])


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
