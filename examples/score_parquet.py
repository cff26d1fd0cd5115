"""Score the photographs of the demo from Parquet to Parquet, with Ray Data: python examples/score_parquet.py FOLDER

FOLDER/model.mxtrt   the demo's network, compiled for 1 to 8 photographs
FOLDER/photos        Parquet: name, shows, pixels
FOLDER/scores        Parquet: name, label, probability
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # from a checkout; nothing of this is needed once it is installed
os.environ["PYTHONPATH"] = sys.path[0]
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
import ray.data

import harness
from harness.demo.network import INPUT, export, softmax
from harness.demo.photos import class_names, photos
from harness.ray import Predictor


def prepare(folder: Path) -> None:
    """Compile the network, and write the photographs as a table."""
    with tempfile.TemporaryDirectory() as scratch:
        export(Path(scratch) / "lite0")
        batch = ((1, 4, 8), *INPUT[1:])
        harness.compile(str(Path(scratch) / "lite0"), inputs={"data": batch}, fallback="error", threads=1).save(
            folder / "model.mxtrt"
        )
    rows = [{"name": shot.name, "shows": shot.shows, "pixels": shot.pixels} for shot in photos()]
    ray.data.from_items(rows, override_num_blocks=2).write_parquet(str(folder / "photos"))


def label(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits to the first class and its probability."""
    chances = softmax(batch["logits"])
    best = chances.argmax(axis=1)
    return {
        "name": batch["name"],
        "label": np.array([class_names()[i] for i in best]),
        "probability": chances.max(axis=1),
    }


def main(folder: Path) -> None:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    prepare(folder)
    (output,) = harness.load(folder / "model.mxtrt").output_names
    settings = {"columns": {"data": "pixels"}, "outputs": {output: "logits"}, "keep": ["name"]}
    scores = (
        ray.data.read_parquet(str(folder / "photos"))
        .map_batches(
            Predictor,
            fn_constructor_args=(str(folder / "model.mxtrt"),),
            fn_constructor_kwargs=settings,
            batch_size=8,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=1,
        )
        .map_batches(label)
    )
    scores.write_parquet(str(folder / "scores"))
    for row in ray.data.read_parquet(str(folder / "scores")).take_all():
        print(f"{row['name']:16} {row['probability']:6.1%}  {row['label']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
