"""What the demo does, in order, and what it says on the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import harness

from .. import numerics
from ..errors import ExecutionError, OptionError
from ..frontend.mxnet import read_model
from .findings import Story, record, top_classes
from .network import INPUT, export, softmax
from .page import write_page
from .photos import photos
from .reference import MXNetNetwork, exact_answers
from .timing import interleaved

Array = npt.NDArray[Any]
TERMS = 1280  # the longest sum behind a logit: the classifier's


def run(output: Path, rounds: int) -> int:
    """See :func:`harness.demo.main`."""
    console = Console()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"output: {output} cannot be made: {error}") from None
    with tempfile.TemporaryDirectory(prefix="mxtrt-demo-") as folder:
        story = _tell(console, Path(folder), rounds)
    _print_table(console, story)
    _print_verdict(console, story)
    (output / "demo.json").write_text(json.dumps(record(story), indent=1) + "\n", "utf-8")
    write_page(story, output / "index.html")
    console.print(f"The page is [bold]{output / 'index.html'}[/bold]")
    return 0 if story.ok else 1


def _tell(console: Console, folder: Path, rounds: int) -> Story:
    seconds: dict[str, float] = {}

    def step(name: str, text: str) -> None:
        now = time.perf_counter()
        if seconds:
            last = next(reversed(seconds))
            seconds[last] = now - seconds[last]
        seconds[name] = now
        console.print(f"[dim]{text}[/dim]")

    step("export", "Gluon network with trained weights -> MXNet's own symbol.json and .params")
    prefix = folder / "efficientnet_lite0"
    export(prefix)
    graph, _ = read_model(str(prefix), None, [])
    step("compile", "harness.compile of these two files")
    model = harness.compile(str(prefix), inputs={"data": INPUT}, fallback="error")
    step("classify", "Real photographs through MXNet and through the compiled model")
    shots = photos()
    images = [shot.pixels[None] for shot in shots]
    network = MXNetNetwork(prefix, INPUT)
    logits = {
        "mxnet": np.concatenate([network(image) for image in images]),
        "compiled": np.concatenate([model(data=image)[0] for image in images]),
    }
    step("reference", "The same in MXNet's float64, and how far rounding alone may move it")
    exact, response = exact_answers(prefix, np.concatenate(images))
    verdicts = {name: numerics.compare(found, exact, response, "fp32", TERMS) for name, found in logits.items()}
    step("timing", "Latency of both, in turns")
    timing = interleaved(network, lambda image: model(data=image), images, rounds)
    step("replay", "Save, load in a process that cannot import MXNet, run again")
    saved = folder / "saved"
    model.save(saved)
    replayed = _replay(saved, np.concatenate(images), folder)
    step("end", "")
    seconds.pop("end")
    return Story(
        shots=shots,
        graph=graph,
        model=model,
        mxnet=softmax(logits["mxnet"]),
        compiled=softmax(logits["compiled"]),
        verdict=verdicts["compiled"],
        mxnet_verdict=verdicts["mxnet"],
        timing=timing,
        replayed=bool(np.array_equal(replayed, logits["compiled"])),
        saved_bytes=sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()),
        seconds=seconds,
    )


def _replay(saved: Path, images: Array, folder: Path) -> Array:
    """The saved model's answers, from another process."""
    inputs, answers = folder / "inputs.npy", folder / "answers.npy"
    np.save(inputs, images)
    home = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "harness.demo.replay", str(saved), str(inputs), str(answers)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ExecutionError(f"the saved model failed in a process without MXNet:\n{done.stderr.strip()}")
    found: Array = np.load(answers)
    return found


# --- the terminal ----------------------------------------------------------------------------------------------------


def _print_table(console: Console, story: Story) -> None:
    table = Table(title="Top 3 of ImageNet's 1000 classes", title_justify="left")
    for heading in ("photograph", "MXNet", "compiled model"):
        table.add_column(heading)
    for shot, mxnet, compiled in zip(story.shots, story.mxnet, story.compiled):
        cells = ["\n".join(f"{p:6.1%} {name}" for _, name, p in top_classes(row)) for row in (mxnet, compiled)]
        table.add_row(shot.name, *cells, end_section=True)
    console.print(table)


def _print_verdict(console: Console, story: Story) -> None:
    speedup, low, high = story.timing.speedup
    medians = [float(np.median(times)) for times in (story.timing.mxnet, story.timing.compiled)]
    for good, text in (
        (story.same_labels, f"the same three classes first on all {len(story.shots)} photographs"),
        (
            bool(story.verdict),
            f"largest error of a logit {story.verdict.max_error:.2g}: {story.verdict.headroom:.1%} of the tolerance",
        ),
        (story.replayed, "saved, loaded without MXNet and run again: the same bits"),
    ):
        console.print(f"{'[green]yes[/green]' if good else '[red]NO [/red]'}  {text}")
    console.print(
        f"median latency: MXNet {medians[0]:.1f} ms, compiled model {medians[1]:.1f} ms "
        f"({speedup:.2f}x, 95 % interval {low:.2f} to {high:.2f}; {story.timing.mxnet.size} runs each, in turns)"
    )
