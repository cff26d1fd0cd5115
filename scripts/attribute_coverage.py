"""Store which attribute values the operator cases take, by family, as reports/coverage.json.

    python -m scripts.attribute_coverage

A number counts as two values. A value that no case takes either has a reason (docs/limitations.md) or is a gap, and
there are to be none.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from scripts.rows import ROOT, row
from suites.ops import coverage
from suites.ops.case import Case, all_specs

OUT = ROOT / "reports" / "coverage.json"


def by_family() -> tuple[dict[str, list[int]], list[str]]:
    """Family -> [operators, values, taken by a case, explained]; and the gaps."""
    from harness.operators import registry
    from harness.operators.schema import schemas

    cases: dict[str, list[Case]] = defaultdict(list)
    for spec in all_specs():
        cases[spec.operator] += coverage.cases_of(spec, per_value=1, free=20)
    explained = {(name, item.attribute): item for item in coverage.all_uncovered() for name in item.operators}
    table = registry.operators()
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    gaps = []
    for operator, definition in registry.definitions().items():
        line = found[table[operator].family or "others"]
        line[0] += 1
        unseen = dict(coverage.missing(operator, cases[operator]))
        for name, kind in schemas()[operator].attributes.items():
            if name in coverage.NOT_COUNTED or name in definition.ignore:
                continue
            count = len(kind.choices) or 2
            left = (len(unseen[name]) or 1) if name in unseen else 0
            reason = explained.get((operator, name))
            known = left if reason is not None and set(unseen.get(name, ())) <= set(reason.values) else 0
            line[1] += count
            line[2] += count - left
            line[3] += known
            gaps += [f"{operator}.{name}"] if left > known else []
    return dict(found), gaps


def document() -> dict[str, Any]:
    """What is stored."""
    families, gaps = by_family()
    total = [sum(line[n] for line in families.values()) for n in range(4)]
    lines = [[name, *line] for name, line in sorted(families.items())]
    return {
        "command": "python -m scripts.attribute_coverage",
        "columns": ["family", "operators", "attribute values", "taken by a case", "explained"],
        "rows": [*lines, ["all", *total]],
        "results": {"gaps": row("attribute values without a case and without a reason", len(gaps), 0, gaps=gaps)},
    }


def main(out: Path = OUT) -> int:
    found = document()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{found['rows'][-1][2]} attribute values, {found['results']['gaps']['value']} gaps: {out}")
    return int(not found["results"]["gaps"]["met"])


if __name__ == "__main__":
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    sys.exit(main())
