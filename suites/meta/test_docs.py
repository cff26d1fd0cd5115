"""The generated pages say what the registry, the limitations and the stored results say."""

from __future__ import annotations

import pytest

from scripts import zoo_report
from scripts.generate_docs import PAGES, stale


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(name: str) -> None:
    assert name not in stale(), f"docs/{name} is stale: python -m scripts.generate_docs"


def test_the_page_of_networks_is_fresh() -> None:
    rows = zoo_report.read()
    assert rows, "reports/zoo.json holds no network; python -m scripts.run_zoo"
    assert zoo_report.PAGE.read_text("utf-8") == zoo_report.page(rows)
