"""Values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The value with infinities and NaN, which JSON does not have, as text; keys become text too."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
