"""What may run where: MXNet, GPUs and compilers are not everywhere, and a test that needs one says so."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

from harness.errors import EngineMissing
from harness.frontend import compat

# These compare with MXNet in every test. Elsewhere a test that needs it carries the marker ``mxnet``.
_REFERENCE_SUITES = ("ops", "models", "meta/test_history.py", "meta/test_accelerator_library.py")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the suites of the reference alone where there is none; ``make test`` runs them where there is."""
    here = Path(__file__).parent
    if not compat.available() and collection_path in [here / name for name in _REFERENCE_SUITES]:
        return True
    if collection_path.name == "test_accelerator_library.py" and _no_accelerator():
        return True
    return None


@functools.cache
def _no_accelerator() -> str:
    """Why harness.accelerator cannot be imported, "" if it can: it needs a C compiler once, and `make test` does not."""
    if os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang"))):
        return ""
    try:
        import harness.accelerator  # noqa: F401
    except EngineMissing as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.get_closest_marker("mxnet"):
            continue
        if not compat.available():
            item.add_marker(pytest.mark.skip(reason="MXNet is not installed here (it needs NumPy 1)"))
        elif item.path.name.startswith("test_accelerator") and _no_accelerator():
            item.add_marker(pytest.mark.skip(reason=_no_accelerator()))
