"""SequenceMask, SequenceLast, SequenceReverse: how their attributes and shapes are drawn."""

from __future__ import annotations

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor
from .reshaping import moved


def sequences(shortest: int, dtypes: tuple[str, ...]) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        shape = d.shape((2, 4))
        axis = a.get("axis", 0)
        inputs = {"data": moved(d, shape, dtypes, (0, 1) if not a.get("use_sequence_length") else ())}
        if a.get("use_sequence_length"):
            dtype = d.pick(("float32", "int32", "int64"))
            steps = [
                n + (0.375 if dtype == "float32" and n < shape[axis] else 0) for n in range(shortest, shape[axis] + 1)
            ]
            inputs["sequence_length"] = Tensor((shape[1 - axis],), dtype, values=steps)
        return inputs

    return build


USE = {"use_sequence_length": [DEFAULT, True, False]}
SPECS = [
    Spec("SequenceMask", {**USE, "axis": [DEFAULT, 0, 1], "value": [DEFAULT, -1.0, 2.5]},
         sequences(0, ("float32", "float64", "float16", "int32", "int64", "int8", "uint8"))),
    Spec("SequenceLast", {**USE, "axis": [DEFAULT, 0, 1]}, sequences(1, ("float32", "float64", "float16", "int32"))),
    Spec("SequenceMask", {"use_sequence_length": [True]}, sequences(0, ("float32",)), examples=2),
    Spec("SequenceMask", {"use_sequence_length": [True], "axis": [0, 1], "value": [-1.0]}, sequences(0, ("float32",)), examples=2),
    Spec("SequenceLast", {"axis": [1]}, sequences(1, ("float32",)), examples=2, varying=5),
    Spec("SequenceReverse", {**USE, "axis": [DEFAULT, 0]}, sequences(1, ("float32", "float64", "float16", "int32"))),
]  # fmt: skip
