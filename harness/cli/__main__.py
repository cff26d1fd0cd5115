"""``python -m harness.cli``, the same as ``mxtrt``."""

from __future__ import annotations

from . import main

main()
