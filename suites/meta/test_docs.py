"""The generated pages say what the registry, the limitations and the stored results say."""

from __future__ import annotations

import pytest

from scripts import run_zoo
from scripts.generate_docs import PAGES, stale


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(name: str) -> None:
    assert name not in stale(), f"docs/{name} is stale: python -m scripts.generate_docs"


def test_the_page_of_networks_is_fresh() -> None:
    rows = run_zoo.read()
    assert rows, "reports/zoo.json holds no network; python scripts/run_zoo.py"
    assert run_zoo.PAGE.read_text("utf-8") == run_zoo.page(rows)
