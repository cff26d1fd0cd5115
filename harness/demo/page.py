"""The demo's page: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from .drawing import COLOURS, draw_graph, draw_latency
from .findings import Story, environment, top_classes


def write_page(story: Story, path: Path) -> None:
    """Render the story to ``path``."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html.j2"
    )
    cards = []
    for shot, mxnet, compiled in zip(story.shots, story.mxnet, story.compiled):
        rows = [(name, share, float(mxnet[number])) for number, name, share in top_classes(compiled)]
        cards.append({"name": shot.name, "shows": shot.shows, "image": _data_uri(shot.square), "rows": rows})
    text = template.render(
        story=story,
        cards=cards,
        graph=draw_graph(story.graph, story.model),
        latency=draw_latency(story.timing),
        medians=[float(np.median(story.timing.mxnet)), float(np.median(story.timing.compiled))],
        colours=COLOURS,
        environment=environment(story),
    )
    path.write_text(text, "utf-8")


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
