"""An MXNet graph as a PyTorch module with the same parameters: the peer for speed comparisons."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from harness.graph import Graph


def _tuple(text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    value = ast.literal_eval(text) if text else ()
    return tuple(value) or default


def _flag(text: str | None, default: bool) -> bool:
    return default if text is None else text in ("True", "1", "true")


def _axes(attributes: dict[str, str], operator: str) -> tuple[int, ...]:
    axes = _tuple(attributes.get("axes"), ())
    if not axes:  # a traced tensor has no rank to count
        raise NotImplementedError(f"{operator} without axes")
    return axes


Step = tuple[int, str, tuple[int, ...], dict[str, str]]  # node, operator, inputs, attributes


def unsupported(graph: Graph) -> str:
    """Why a graph has no twin: operators that the twin does not have; "" if it has them all."""
    operators = {node.operator for node in graph.nodes if not node.is_variable}
    missing = sorted(name for name in operators if not hasattr(Twin, f"_{name.lstrip('_')}"))
    return f"it has no {', '.join(missing)}" if missing else ""


def make_twin(graph: Graph, params: dict[str, np.ndarray[Any, Any]], fold: bool = False) -> torch.fx.GraphModule:
    """The graph as straight-line PyTorch code, in evaluation: what torch.compile takes as one graph.

    Traced, because the loop over the nodes and the reading of attributes would break the graph at every operator
    (torch.compile then falls back to small graphs, slower than eager PyTorch), and eager calls would pay for both.
    Arguments and parameters as :class:`Twin` has them.
    """
    return torch.fx.symbolic_trace(Twin(graph, params, fold).eval())


class Twin(torch.nn.Module):  # type: ignore[misc]  # torch has no annotations where it is not installed
    """Runs the operators of Gluon's zoo, and of SSD before its suppression, as PyTorch's own functions.

    A parameter is a buffer of the module. The answer is a tensor, or a tuple where the graph has several outputs.
    """

    def __init__(self, graph: Graph, params: dict[str, np.ndarray[Any, Any]], fold: bool = False) -> None:
        """With ``fold``, a BatchNorm behind a convolution goes into its weights."""
        super().__init__()
        self.plan: list[Step] = []
        self.names: dict[int, str] = {}
        for index, node in enumerate(graph.nodes):
            if node.is_variable:
                if node.name in params:
                    self.names[index] = f"p{index}"
                    self.register_buffer(f"p{index}", torch.from_numpy(np.array(params[node.name])))
                continue
            self.plan.append((index, node.operator, tuple(e.node for e in node.inputs), dict(node.attributes)))
        self.data = next(i for i, n in enumerate(graph.nodes) if n.is_variable and n.name not in params)
        self.heads = tuple(entry.node for entry in graph.heads)
        self._fix_gamma()
        if fold:
            self._fold()

    def _fold(self) -> None:
        operators = {index: operator for index, operator, _, _ in self.plan}
        readers = [source for _, _, inputs, _ in self.plan for source in inputs]
        kept: list[Step] = []
        replaced: dict[int, int] = {}
        for index, operator, sources, attributes in self.plan:
            inputs = tuple(replaced.get(source, source) for source in sources)
            conv = inputs[0] if inputs else -1
            if operator == "BatchNorm" and operators.get(conv) == "Convolution" and readers.count(conv) == 1:
                position = next(i for i, step in enumerate(kept) if step[0] == conv)
                kept[position] = self._folded(kept[position], [getattr(self, self.names[i]) for i in inputs[1:5]],
                                              float(attributes.get("eps", 1e-3)))  # fmt: skip
                replaced[index] = conv
                continue
            kept.append((index, operator, inputs, attributes))
        self.plan = kept
        self.heads = tuple(replaced.get(head, head) for head in self.heads)
        used = {source for _, _, inputs, _ in self.plan for source in inputs}
        for index in [i for i in self.names if i not in used]:
            delattr(self, self.names.pop(index))

    def _folded(self, step: Step, statistics: list[torch.Tensor], eps: float) -> Step:
        index, operator, inputs, attributes = step
        gamma, beta, mean, variance = (s.double() for s in statistics)
        weight = getattr(self, self.names[inputs[1]]).double()
        bias = getattr(self, self.names[inputs[2]]).double() if len(inputs) > 2 else torch.zeros_like(mean)
        scale = gamma / torch.sqrt(variance + eps)
        setattr(self, self.names[inputs[1]], (weight * scale.view(-1, *[1] * (weight.ndim - 1))).float())
        self.names[-1 - index] = f"folded{index}"  # no node has a negative number
        self.register_buffer(f"folded{index}", ((bias - mean) * scale + beta).float())
        return index, operator, (*inputs[:2], -1 - index), {**attributes, "no_bias": "False"}

    def _fix_gamma(self) -> None:
        for _, operator, inputs, attributes in self.plan:
            if operator == "BatchNorm" and _flag(attributes.get("fix_gamma"), True):
                getattr(self, self.names[inputs[1]]).fill_(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        values: dict[int, torch.Tensor] = {self.data: x}
        for index, name in self.names.items():
            values[index] = getattr(self, name)
        for index, operator, inputs, attributes in self.plan:
            method = getattr(self, f"_{operator.lstrip('_')}")
            values[index] = method([values[i] for i in inputs], attributes)
        answers = tuple(values[head] for head in self.heads)
        return answers if len(answers) > 1 else answers[0]

    def _Convolution(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        bias = v[2] if len(v) > 2 else None
        stride, pad, dilate = (
            _tuple(a.get(k), d) for k, d in (("stride", (1, 1)), ("pad", (0, 0)), ("dilate", (1, 1)))
        )
        return functional.conv2d(v[0], v[1], bias, stride, pad, dilate, int(a.get("num_group", 1)))

    def _BatchNorm(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        x, gamma, beta, mean, var = v
        return functional.batch_norm(x, mean, var, gamma, beta, False, 0.0, float(a.get("eps", 1e-3)))

    def _Activation(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return {"relu": functional.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[a["act_type"]](v[0])

    def _Pooling(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        kind = a.get("pool_type", "max")
        if _flag(a.get("global_pool"), False):
            return v[0].mean((2, 3), keepdim=True) if kind == "avg" else v[0].amax((2, 3), keepdim=True)
        kernel, stride = _tuple(a.get("kernel"), ()), _tuple(a.get("stride"), (1, 1))
        pad, full = _tuple(a.get("pad"), (0, 0)), a.get("pooling_convention") == "full"
        if kind == "max":
            return functional.max_pool2d(v[0], kernel, stride, pad, ceil_mode=full)
        return functional.avg_pool2d(v[0], kernel, stride, pad, ceil_mode=full)

    def _FullyConnected(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        x = v[0].flatten(1) if _flag(a.get("flatten"), True) else v[0]
        return functional.linear(x, v[1], v[2] if len(v) > 2 else None)

    def _Flatten(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return v[0].flatten(1)

    def _elemwise_add(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0] + v[1]

    def _clip(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0].clamp(float(a["a_min"]), float(a["a_max"]))

    def _Concat(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return torch.cat(v, int(a.get("dim", 1)))

    def _Dropout(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return v[0]

    def _transpose(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0].permute(_axes(a, "transpose"))

    def _Reshape(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        sizes = _tuple(a.get("shape"), ())
        if any(size < -1 for size in sizes):
            raise NotImplementedError(f"Reshape to {sizes}")
        return v[0].reshape([v[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)])

    def _softmax(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return functional.softmax(v[0], int(a.get("axis", -1)))

    def _mul_scalar(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0] * float(a["scalar"])

    def _slice_like(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        x = v[0]
        for axis in _axes(a, "slice_like"):
            x = x.narrow(axis, 0, v[1].shape[axis])
        return x

    def _contrib_box_decode(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        if a.get("format", "center") != "center" or float(a.get("clip", -1)) > 0:
            raise NotImplementedError(f"box_decode with {a}")
        deltas, anchors = v
        x, y, width, height = anchors.unbind(-1)
        shift_x, shift_y, grow_x, grow_y = (deltas[..., i] * float(a.get(f"std{i}", 1)) for i in range(4))
        middle_x, middle_y = shift_x * width + x, shift_y * height + y
        half_x, half_y = torch.exp(grow_x) * width / 2, torch.exp(grow_y) * height / 2
        return torch.stack((middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y), -1)
