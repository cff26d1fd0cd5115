"""Run a saved model in a process that cannot import MXNet: ``python -m harness.demo.replay FOLDER INPUTS ANSWERS``."""

from __future__ import annotations

import sys

sys.modules["mxnet"] = None  # type: ignore[assignment]  # importing MXNet raises ImportError from here on

import numpy as np  # noqa: E402

import harness  # noqa: E402


def main(folder: str, inputs: str, answers: str) -> None:
    """Load ``folder``, run it on each row of ``inputs`` (.npy), and write what it says to ``answers`` (.npy)."""
    model = harness.load(folder)
    (name,) = model.input_names
    np.save(answers, np.concatenate([model(**{name: row[None]})[0] for row in np.load(inputs)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
