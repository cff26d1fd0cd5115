"""The options in docs/plan-cache.md are those of the engine."""

from __future__ import annotations

from pathlib import Path

from harness.engines.tensorrt.options import OPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "plan-cache.md"


def table() -> str:
    rows = [
        f"| `{name}` | {option.text} | {'builds anew' if option.build else 'no'} |" for name, option in OPTIONS.items()
    ]
    return "\n".join(["| option | what it does | does it build anew? |", "|---|---|---|", *rows])


def test_the_table_of_options() -> None:
    assert table() in PAGE.read_text(), f"paste this into {PAGE}:\n{table()}"
