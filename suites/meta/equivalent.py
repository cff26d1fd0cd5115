"""Planted faults that change no answer, and why."""

from __future__ import annotations

from .planting import Fault


def why_equivalent(fault: Fault) -> str | None:
    return None
