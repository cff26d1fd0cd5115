"""The main job on real input: a trained ImageNet network and real photographs, from MXNet's files to a saved model.

``make demo``, ``mxtrt demo`` or ``python -m harness.demo``; needs the extra ``demo``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["main"]


def main(output: str | Path = "reports/demo", rounds: int = 8) -> int:
    """Run the demo and write ``output/index.html`` and ``output/demo.json``.

    Args:
        output: the folder; it is made if it is not there.
        rounds: how often the two runtimes take turns in the latency comparison.

    Returns:
        0 if every number is MXNet's and the saved model gives the same again, else 1.

    Raises:
        EngineMissing: MXNet, the weights or a package with photographs is not installed.
    """
    from .story import run

    return run(Path(output), rounds)
