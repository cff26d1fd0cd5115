"""The generated pages say what the registry and the limitations say."""

from __future__ import annotations

import pytest

from scripts.generate_docs import PAGES, stale


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(name: str) -> None:
    assert name not in stale(), f"docs/{name} is stale: python -m scripts.generate_docs"
