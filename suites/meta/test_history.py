"""The historic integration's defects, MXNet's operator traps and MXNet 1.7's own TensorRT tests, as cases.

MXNet's TensorRT integration (1.3 to 1.9) ended with fourteen known defects. Each is a case here, so that none comes
back. Its operator tests (deleted in 1.8) drew attributes and asserted that a node was, or was not, taken by TensorRT;
here every one of those nodes is lowered, also those that it left to MXNet.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import harness
from harness.frontend.compat import mxnet
from suites.ops.batch import run_cases
from suites.ops.case import Case, Tensor, text
from suites.ops.check import check
from suites.ops.limitations import limitation_of

mx = mxnet()
IMAGE = Tensor((2, 4, 6, 6))
NAN = np.array([[np.nan, 1.0, -2.0, 0.5]])


def case(operator: str, attributes: dict[str, object], terms: int = 1, outputs: int = 1, **inputs: Tensor) -> Case:
    return Case(operator, {k: text(v) for k, v in attributes.items()}, inputs, terms=terms, outputs=outputs)


def conv(filters: int, kernel: int = 3) -> dict[str, Tensor]:
    return {
        "data": IMAGE,
        "weight": Tensor((filters, 4, kernel, kernel), const=True),
        "bias": Tensor((filters,), const=True),
    }


def deconv(**attributes: object) -> Case:
    fixed = {"kernel": (3, 3), "stride": (2, 2), "num_filter": 2}
    weight = Tensor((4, 2, 3, 3), const=True)
    return case("Deconvolution", {**fixed, **attributes}, 36, data=IMAGE, weight=weight)


def norm(
    gamma: float = 0.0, dtype: str = "float32", shape: tuple[int, ...] = (2, 4, 3, 3), axis: int = 1, **a: object
) -> Case:
    size = (shape[axis],)
    return case(
        "BatchNorm",
        {**({"axis": axis} if axis != 1 else {}), **a},
        data=Tensor(shape, dtype),
        gamma=Tensor(size, values=[gamma], const=True),
        beta=Tensor(size, const=True),
        moving_mean=Tensor(size, const=True),
        moving_var=Tensor(size, low=0.1, high=3, const=True),
    )


def softmax_output(label: tuple[int, ...], **attributes: object) -> Case:
    data = Tensor((2, 3, 4), low=-4, high=4)
    return case("SoftmaxOutput", attributes, 12, data=data, softmax_label=Tensor(label, values=[0.0]))


def leaky(kind: str, slope: tuple[int, ...] | None = None, outputs: int = 1, **attributes: object) -> Case:
    inputs = {"data": Tensor((2, 4, 3, 3), avoid=(0.0,))}
    if slope:
        inputs["gamma"] = Tensor(slope, low=0.1, high=0.5, const=True)
    return case("LeakyReLU", {"act_type": kind, **attributes}, outputs=outputs, **inputs)


def pool(data: Tensor = IMAGE, **attributes: object) -> Case:
    return case("Pooling", attributes, 36, data=data)


def resize(**attributes: object) -> Case:
    return case("_contrib_BilinearResize2D", attributes, 4, data=IMAGE)


# --- defects of single operators: (number in the list of fourteen, what went wrong, case) ----------------------------

DEFECTS = [
    (1, "rsqrt had no converter", case("rsqrt", {}, data=Tensor((2, 3), low=0.5))),
    (1, "slice was never selected", case("slice", {"begin": "(0, 1)", "end": "(2, None)"}, data=Tensor((3, 4)))),
    (2, "adj was dropped", deconv(adj=(1, 1))),
    (2, "target_shape was dropped", deconv(target_shape=(12, 12))),
    (2, "multi_output was ignored", softmax_output((2, 4), multi_output=True)),
    (2, "preserve_shape was ignored", softmax_output((2, 3), preserve_shape=True)),
    (3, "fix_gamma is on by default, the stored gamma 0", norm()),
    (3, "fix_gamma is off and gamma counts", norm(gamma=1.5, fix_gamma=False)),
    (4, "float16 constants through a wrong pointer", norm(gamma=1.0, dtype="float16", fix_gamma=False)),
    (4, "constants of other types",
     case("broadcast_add", {}, lhs=Tensor((2, 3), "int32"), rhs=Tensor((1, 3), "int32", const=True))),
    (6, "several outputs",
     Case("SliceChannel", {"num_outputs": "2"}, {"data": Tensor((2, 4))}, outputs=2)),
    (6, "statistics as outputs", Case("LayerNorm", {"output_mean_var": "True"}, {"data": Tensor((2, 4)),
     "gamma": Tensor((4,)), "beta": Tensor((4,))}, outputs=3, terms=4)),
]  # fmt: skip

# --- traps of the families of layers: what a port gets wrong ---------------------------------------------------------

TRAPS = [
    ("eps is 1e-3 by default", norm(fix_gamma=False, gamma=2.0)),
    ("eps as written", norm(fix_gamma=False, gamma=2.0, eps=2e-5)),
    ("batch norm along the last axis", norm(gamma=1.0, axis=-1, fix_gamma=False)),
    ("batch norm of 2-D data", norm(gamma=1.0, shape=(3, 5), fix_gamma=False)),
    ("prelu with a slope per channel", leaky("prelu", (4,))),
    ("prelu with one slope", leaky("prelu", (1,))),
    ("leaky slope 0.25", leaky("leaky")),
    ("elu slope 0.25", leaky("elu")),
    ("gelu is the erf form", leaky("gelu")),
    ("rrelu has two outputs and the mean slope", leaky("rrelu")),
    ("softmax over all axes but the first", softmax_output((2, 3))),
    ("instance is the last axis", Case("SoftmaxActivation", {}, {"data": Tensor((2, 3, 4))}, terms=4)),
    ("channel is axis 1", Case("SoftmaxActivation", {"mode": "channel"}, {"data": Tensor((2, 3, 4))}, terms=3)),
    ("temperature divides", case("softmax", {"temperature": 2.5}, 4, data=Tensor((2, 4)))),
    ("lengths zero the tail", case("softmax", {"use_length": True}, 4, data=Tensor((2, 4)),
     length=Tensor((2,), "int32", values=[2, 3]))),
    ("convolution has a bias by default", case("Convolution", {"kernel": (3, 3), "num_filter": 2}, 36, **conv(2))),
    ("target_shape overrides pad and adj", deconv(target_shape=(11, 12), pad=(1, 1), adj=(1, 0))),
    ("stride is 1 by default", pool(kernel=(2, 2), pool_type="avg")),
    ("global pool ignores kernel, pad and stride",
     pool(kernel=(1, 1), global_pool=True, pooling_convention="full", pool_type="avg", stride=(2, 2))),
    ("full rounds up", pool(kernel=(3, 3), stride=(2, 2), pooling_convention="full", pool_type="max")),
    ("full, averaged with padding",
     pool(kernel=(3, 3), stride=(2, 2), pad=(1, 1), pooling_convention="full", pool_type="avg")),
    ("padding counts by default", pool(kernel=(3, 3), pad=(1, 1), pool_type="avg")),
    ("padding does not count", pool(kernel=(3, 3), pad=(1, 1), pool_type="avg", count_include_pad=False)),
    ("sum pooling", pool(kernel=(2, 2), pool_type="sum")),
    ("lp pooling", pool(kernel=(2, 2), pool_type="lp", p_value=2)),
    ("fully connected flattens", case("FullyConnected", {"num_hidden": 3}, 36, data=Tensor((2, 4, 3, 3)),
     weight=Tensor((3, 36), const=True), bias=Tensor((3,), const=True))),
    ("fully connected keeps axes", case("FullyConnected", {"num_hidden": 3, "flatten": False}, 4,
     data=Tensor((2, 5, 4)), weight=Tensor((3, 4), const=True), bias=Tensor((3,), const=True))),
    ("flatten of one axis", case("Flatten", {}, data=Tensor((4,)))),
    ("L2 over an instance", case("L2Normalization", {}, 12, data=Tensor((2, 3, 4)))),
    ("L2 over channels", case("L2Normalization", {"mode": "channel"}, 12, data=Tensor((2, 3, 4)))),
    ("L2 over space", case("L2Normalization", {"mode": "spatial"}, 12, data=Tensor((2, 3, 4)))),
    ("alpha is divided by nsize", Case("LRN", {"nsize": "3", "alpha": "0.5"}, {"data": Tensor((1, 5, 2, 2))},
     terms=3, reference_dtype="float32")),
    ("instance norm's eps is 1e-3", Case("InstanceNorm", {}, {"data": Tensor((2, 3, 4)), "gamma": Tensor((3,)),
     "beta": Tensor((3,))}, terms=4, reference_dtype="float32")),
    ("group norm's gamma has one value per group", case("GroupNorm", {"num_groups": 2}, 12,
     data=Tensor((2, 4, 3)), gamma=Tensor((2,)), beta=Tensor((2,)))),
    ("corners are aligned by default", resize(height=9, width=11)),
    ("corners are not aligned", resize(height=9, width=11, align_corners=False)),
    ("size odd, rounded up", resize(mode="to_odd_up")),
    ("several inputs joined", case("UpSampling", {"scale": 2, "sample_type": "nearest", "num_args": 2},
     arg0=Tensor((1, 2, 3, 3)), arg1=Tensor((1, 1, 6, 6)))),
    ("windows of unequal size", case("_contrib_AdaptiveAvgPooling2D", {"output_size": (4, 5)}, 36, data=IMAGE)),
    ("one output by default", case("_contrib_AdaptiveAvgPooling2D", {}, 36, data=IMAGE)),
    ("relu keeps NaN", case("Activation", {"act_type": "relu"}, data=Tensor((1, 4), values=NAN))),
    ("dropout is the identity", case("Dropout", {"p": 0.7}, data=Tensor((2, 3)))),
    ("elementwise addition", case("elemwise_add", {}, lhs=Tensor((2, 3)), rhs=Tensor((2, 3)))),
]  # fmt: skip


@pytest.mark.parametrize("example", [c for *_, c in DEFECTS], ids=[f"{n}-{what}" for n, what, _ in DEFECTS])
def test_defect(example: Case) -> None:
    check(example)


@pytest.mark.parametrize("example", [c for _, c in TRAPS], ids=[what for what, _ in TRAPS])
def test_trap(example: Case) -> None:
    check(example)


# --- MXNet 1.7's operator tests --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Historic:
    """A node of those tests, and whether the integration took it."""

    example: Case
    taken: bool


def _convolutions() -> Iterator[Historic]:
    kernels, strides, pads = [(1, 1), (3, 3), (1, 3)], [(1, 1), (2, 2), (2, 1)], [(0, 0), (1, 1), (0, 1)]
    for kernel, stride, pad, bare in itertools.product(kernels, strides, pads, (True, False)):
        attributes = {
            "kernel": kernel,
            "stride": stride,
            "pad": pad,
            "num_filter": 2,
            "no_bias": bare,
            "layout": "NCHW",
        }
        inputs = {"data": IMAGE, "weight": Tensor((2, 4, *kernel), const=True)}
        yield Historic(
            case("Convolution", attributes, 36, **inputs, **({} if bare else {"bias": Tensor((2,), const=True)})), True
        )
        if max(kernel) > 1:
            weight = Tensor((4, 2, *kernel), const=True)
            inputs = {"data": IMAGE, "weight": weight, **({} if bare else {"bias": Tensor((2,), const=True)})}
            yield Historic(case("Deconvolution", attributes, 36, **inputs), True)


def _poolings() -> Iterator[Historic]:
    kinds, conventions, padded = ("max", "avg", "lp"), ("valid", "full"), (True, False)
    windows = [((2, 2), (1, 1), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 2), (1, 0))]
    for kind, convention, counted, layout in itertools.product(kinds, conventions, padded, ("NCHW", "NHWC")):
        for (kernel, stride, pad), everywhere in itertools.product(windows, (True, False)):
            if kind == "lp" and (convention == "full" or layout == "NHWC"):
                continue
            attributes = {
                "kernel": kernel, "stride": stride, "pad": pad, "pool_type": kind, "pooling_convention": convention,
                "global_pool": everywhere, "count_include_pad": counted, "layout": layout,
                **({"p_value": 2} if kind == "lp" else {}),
            }  # fmt: skip
            plain = kind != "lp" and layout == "NCHW" and (everywhere or convention == "valid")
            yield Historic(pool(**attributes), plain and (kind == "max" or everywhere or not counted))


def _others() -> Iterator[Historic]:
    for fixed, frozen, axis in itertools.product((True, False), (True, False), range(4)):
        yield Historic(norm(1.5, axis=axis, fix_gamma=fixed, use_global_stats=frozen), axis == 1)
    for axis in (0, 1, 2, 3):
        inputs = {f"arg{i}": Tensor((2, 3, 3, 2)) for i in range(3)}
        yield Historic(case("Concat", {"dim": axis, "num_args": 3}, **inputs), axis != 0)
    for bare, flatten in itertools.product((True, False), (True, False)):
        shape = (5, 36) if flatten else (5, 3)
        bias = {} if bare else {"bias": Tensor((5,), const=True)}
        attributes = {"num_hidden": 5, "no_bias": bare, "flatten": flatten}
        weight = Tensor(shape, const=True)
        yield Historic(
            case("FullyConnected", attributes, 36, data=Tensor((2, 4, 3, 3)), weight=weight, **bias), not bare
        )
    for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign"):
        taken = kind in ("relu", "sigmoid", "tanh")
        yield Historic(case("Activation", {"act_type": kind}, data=Tensor((2, 3), avoid=(0.0,))), taken)
    for pad in ("(0, 0, 0, 0, 1, 1, 2, 2)", "(0, 0, 0, 0, 0, 3, 1, 0)"):
        yield Historic(case("Pad", {"mode": "constant", "pad_width": pad}, data=IMAGE), True)
    for name, inputs in (("clip", 1), ("relu", 1), ("Flatten", 1), ("Dropout", 1), ("_copy", 1),
                         ("elemwise_add", 2), ("elemwise_sub", 2), ("elemwise_mul", 2), ("elemwise_div", 2)):  # fmt: skip
        tensors = {f"x{i}": Tensor((2, 3, 4), low=0.1, high=3) for i in range(inputs)}
        attributes = {"a_min": 0.5, "a_max": 2.5} if name == "clip" else {}
        yield Historic(case(name, attributes, **tensors), name != "elemwise_div")


SWEEPS = {"convolutions": list(_convolutions()), "poolings": list(_poolings()), "others": list(_others())}


@pytest.mark.parametrize("name", SWEEPS)
def test_operators_of_1_7(name: str) -> None:
    """One graph of all of them: each is lowered, and right, whether or not the integration took it."""
    sweep = [item for item in SWEEPS[name] if limitation_of(item.example, "onnxruntime", "fp32") is None]
    outcomes = run_cases([item.example for item in sweep], "onnxruntime", "fp32")
    wrong = [f"{o.state}: {o.text} [{item.example}]" for o, item in zip(outcomes, sweep) if o.state != "right"]
    assert not wrong, "\n".join(wrong)
    assert len(outcomes) > 20


def test_the_sweeps_hold_what_was_and_was_not_taken() -> None:
    assert {item.taken for sweep in SWEEPS.values() for item in sweep} == {True, False}


@pytest.mark.parametrize("labelled", [True, False])
def test_softmax_output_with_and_without_label(labelled: bool) -> None:
    data = mx.sym.var("data")
    symbol = mx.sym.SoftmaxOutput(data, mx.sym.var("softmax_label")) if labelled else mx.sym.SoftmaxOutput(data)
    model = harness.compile(symbol, {}, {"data": (2, 3)}, engine="onnxruntime", fallback="error")
    assert model.input_names == ["data"]
    (y,) = model(data=np.zeros((2, 3), np.float32))
    np.testing.assert_allclose(y, 1 / 3, rtol=1e-6)


def test_a_bare_variable_is_no_segment() -> None:
    model = harness.compile(mx.sym.var("data"), {}, {"data": (2, 3)}, engine="onnxruntime")
    assert model.segments == []
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = model(data=x)
    assert np.array_equal(x, y)
    assert y is not x


# --- defects of whole graphs -----------------------------------------------------------------------------------------


def _dense(data, size: int, name: str):
    return mx.sym.FullyConnected(data, num_hidden=size, name=name)


def _dense_parameters(*layers: tuple[str, int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for name, outputs, inputs in layers:
        found[f"{name}_weight"] = rng.normal(size=(outputs, inputs)).astype(np.float32)
        found[f"{name}_bias"] = rng.normal(size=outputs).astype(np.float32)
    return found


def _agrees(model: harness.Model, symbol, params: dict[str, np.ndarray], **inputs: np.ndarray) -> None:
    arrays = {name: mx.nd.array(array, dtype=array.dtype) for name, array in {**params, **inputs}.items()}
    found = symbol.bind(mx.cpu(), arrays, grad_req="null").forward()
    for actual, expected in zip(model(**inputs), found, strict=True):
        np.testing.assert_allclose(actual, expected.asnumpy(), rtol=1e-5, atol=1e-5)


def test_5_a_parameter_named_label_stays() -> None:
    symbol = mx.sym.broadcast_add(mx.sym.var("data"), mx.sym.var("label_offset"))
    params = {"label_offset": np.array([[1.0, 2.0, 3.0]], np.float32)}
    model = harness.compile(symbol, params, {"data": (2, 3)}, engine="onnxruntime", fallback="error")
    _agrees(model, symbol, params, data=np.ones((2, 3), np.float32))


def test_5_an_input_named_label_stays() -> None:
    symbol = mx.sym.var("data") + mx.sym.var("my_label")
    model = harness.compile(symbol, {}, {"data": (2,), "my_label": (2,)}, engine="onnxruntime", fallback="error")
    (y,) = model(data=np.ones(2, np.float32), my_label=np.full(2, 4, np.float32))
    assert y.tolist() == [5, 5]


def test_7_one_model_serves_a_range_of_batches() -> None:
    symbol = _dense(mx.sym.var("data"), 3, "fc")
    params = _dense_parameters(("fc", 3, 4))
    model = harness.compile(symbol, params, {"data": ((1, 4, 8), 4)}, engine="onnxruntime", fallback="error")
    for batch in (1, 3, 8):
        _agrees(model, symbol, params, data=np.ones((batch, 4), np.float32))
    with pytest.raises(harness.InputError, match="1.*8"):
        model(data=np.ones((9, 4), np.float32))


def test_8_calibration_is_an_argument_and_not_a_side_effect_of_the_first_calls() -> None:
    symbol, params = _dense(mx.sym.var("data"), 32, "fc"), _dense_parameters(("fc", 32, 32))
    with pytest.raises(harness.HarnessError, match="calibration"):
        harness.compile(symbol, params, {"data": (1, 32)}, engine="onnxruntime", precision="int8")
    samples = [{"data": np.random.default_rng(i).normal(size=(1, 32)).astype(np.float32)} for i in range(4)]
    first, second = (
        harness.compile(symbol, params, {"data": (1, 32)}, engine="onnxruntime", precision="int8", calibration=samples)
        for _ in range(2)
    )
    before = first(data=samples[0]["data"])[0]
    for sample in samples:
        first(**sample)
    assert np.array_equal(before, first(data=samples[0]["data"])[0])
    assert np.array_equal(before, second(data=samples[0]["data"])[0])


def test_9_a_failure_is_an_exception_and_the_next_call_works() -> None:
    model = harness.compile(mx.sym.var("data") * 2, {}, {"data": (2,)}, engine="onnxruntime")
    with pytest.raises(harness.InputError, match="data"):
        model(data=np.ones(3, np.float32))
    assert model(data=np.ones(2, np.float32))[0].tolist() == [2, 2]


def _residual():
    """FC to FC, with a bypass through an operator that is left to MXNet: the parts must not form a cycle."""
    start = _dense(mx.sym.var("data"), 4, "a")
    bypass = mx.sym.shuffle(start) * 0  # draws: nothing lowers it
    return _dense(start, 4, "b") + bypass


def _pyramid():
    """Two engines' worth of nodes whose naive parts would need each other."""
    data = mx.sym.var("data")
    left, right = _dense(data, 4, "a"), mx.sym.shuffle(data) * 0
    return mx.sym.Group([left + mx.sym.sin(right), mx.sym.shuffle(left) * 0 + mx.sym.relu(right) + left])


@pytest.mark.parametrize("build", [_residual, _pyramid])
def test_10_no_cycle_between_parts(build) -> None:
    symbol = build()
    params = _dense_parameters(("a", 4, 4), ("b", 4, 4))
    params = {name: a for name, a in params.items() if name in symbol.list_arguments()}
    model = harness.compile(symbol, params, {"data": (2, 4)}, engine="onnxruntime")
    assert {segment.engine for segment in model.segments} == {"onnxruntime", "mxnet"}
    _agrees(model, symbol, params, data=np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32))


def test_10_fully_connected_and_sine_are_one_part() -> None:
    start = _dense(mx.sym.var("data"), 4, "a")
    symbol = _dense(start, 4, "b") + mx.sym.sin(start)
    params = _dense_parameters(("a", 4, 4), ("b", 4, 4))
    model = harness.compile(symbol, params, {"data": (2, 4)}, engine="onnxruntime", fallback="error")
    assert len(model.segments) == 1
    _agrees(model, symbol, params, data=np.ones((2, 4), np.float32))


def test_11_a_precision_holds_for_its_own_model_only() -> None:
    symbol, params = _dense(mx.sym.var("data"), 32, "fc"), _dense_parameters(("fc", 32, 32))
    x = np.random.default_rng(2).normal(size=(1, 32)).astype(np.float32)

    def answer(precision: str) -> np.ndarray:
        model = harness.compile(symbol, params, {"data": (1, 32)}, engine="onnxruntime", precision=precision)
        return model(data=x)[0]

    before, narrow, after = answer("fp32"), answer("fp16"), answer("fp32")
    assert np.array_equal(before, after)
    assert not np.array_equal(before, narrow)


def test_12_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(harness.HarnessError, match=re.compile("device|GPU|install|import", re.IGNORECASE)):
        harness.compile(mx.sym.var("data") * 2, {}, {"data": (2,)}, engine="tensorrt", device=99)


def test_13_a_missing_engine_is_an_error() -> None:
    with pytest.raises(harness.HarnessError, match="nosuchengine"):
        harness.compile(mx.sym.var("data") * 2, {}, {"data": (2,)}, engine="nosuchengine")


def test_14_constants_above_64_megabytes(tmp_path) -> None:
    """The historic integration serialised the graph with its weights into one message of at most 64 MB."""
    size = 4200
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=size, no_bias=True, name="fc")
    params = {"fc_weight": np.zeros((size, size), np.float32)}
    params["fc_weight"][-1, -1] = 3
    assert params["fc_weight"].nbytes > 64 << 20
    model = harness.compile(symbol, params, {"data": (1, size)}, engine="onnxruntime", fallback="error")
    (y,) = model(data=np.ones((1, size), np.float32))
    assert y.sum() == 3
