"""What may run where: MXNet and GPUs are not everywhere, and a test that needs one says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.frontend import compat

# These compare with MXNet in every test. Elsewhere a test that needs it carries the marker ``mxnet``.
_REFERENCE_SUITES = ("ops", "models", "meta/test_history.py", "meta/test_accelerator_library.py")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the suites of the reference alone where there is none; ``make test`` runs them where there is."""
    here = Path(__file__).parent
    if not compat.available() and collection_path in [here / name for name in _REFERENCE_SUITES]:
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if compat.available():
        return
    for item in items:
        if item.get_closest_marker("mxnet"):
            item.add_marker(pytest.mark.skip(reason="MXNet is not installed here (it needs NumPy 1)"))
