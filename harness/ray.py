"""What a Ray program needs: ``harness.ray.Predictor`` for ``ray.data.Dataset.map_batches``."""

from __future__ import annotations

from .fleet.predictor import Predictor

__all__ = ["Predictor"]
