"""Planted faults that no case catches, each with an argument: why it changes no answer, or why no case can tell.

Most are places where two ways of writing give the same for every legal case. ``suites.meta.mutate`` holds the arguments
to the cases: a fault that is listed here and caught all the same is an error of this list, and so is an entry that no
fault fits (suites/meta/test_mutation.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .planting import Fault


@dataclass(frozen=True)
class Explained:
    """Faults that are not caught.

    Attributes:
        where: the file and the function, as "softmax._wider".
        change: a regular expression that the whole change fits.
        why: the argument.
        on: what its line contains, where others have the same change.
        kinds: the kinds of fault; () is all.
        same_graph: whether the emitted ONNX stays the same, byte for byte, in every case that reaches the fault: a run
            holds that against each case.
        equivalent: whether the answers stay the same; else it is a fault that the suite is blind to.
    """

    where: str
    change: str
    why: str
    kinds: tuple[str, ...] = ()
    on: str = ""
    same_graph: bool = True
    equivalent: bool = True

    def fits(self, fault: Fault) -> bool:
        """Whether a fault is meant."""
        where = f"{fault.module.rpartition('.')[2]}.{fault.function}"
        return (
            where == self.where
            and self.on in fault.text
            and (not self.kinds or fault.kind in self.kinds)
            and re.fullmatch(self.change, fault.change, re.DOTALL) is not None
        )


_ROUNDED_UP = r".* // .* -> -\(-.* // .*\)"


def exact(where: str, why: str) -> Explained:
    """A division that leaves nothing: rounding it up instead of down is the same."""
    return Explained(where, _ROUNDED_UP, why, ("wrong rounding",))


def other_way(where: str, change: str, why: str, on: str = "") -> Explained:
    """Other ONNX with the same answer."""
    return Explained(where, change, why, on=on, same_graph=False)


EXPLAINED: list[Explained] = [
    # --- divisions that leave nothing
    exact("recurrent._ordered", "a layer's parameters are stacked gates of one size: their number divides the rows"),
    exact("resize.adaptive_average_pooling", "this way is taken only where the output's size divides the input's"),
    exact("padding.col2im", "a number of rows that is no multiple of the window's size is refused before"),
    exact("reshaping.np_reshape", "if it leaves something, the new shape has another size than the data: refused"),
    exact("reshaping.depth_to_space", "a number of channels that is no multiple of the block is refused before"),
    exact("joining._equal_parts", "a size that is no multiple of the number of parts is refused before"),
    exact("detection._by_position", "the number of channels is a multiple of that of the positions: MXNet asks for it"),
    Explained(
        "fusion.quantize_weights",
        r"len\(scales\) // groups -> .*",
        "groups divide the number of filters: MXNet asks for it",
        ("wrong rounding",),
    ),
    exact("attention._parts", "a width that is no multiple of heads and parts is refused before"),
    exact("convolution.convolved", "MXNet refuses groups that do not divide the channels"),
    exact("normalization.group_norm", "MXNet refuses groups that do not divide the channels"),
    exact("reshaping.reshape", "if it leaves something, the new shape has another size than the data: refused"),
    exact("reshaping.space_to_depth", "a size that is no multiple of the block is refused before"),
    exact("resize._repeated", "if it leaves something, the data do not reach the size by a whole factor: refused"),
    exact("recurrent._unpack", "each layer and direction has as many weights as every other one"),
    # --- numbers that stand for more than themselves
    Explained(
        "indexing._FIRST",
        ".*",
        "the smallest int64 as a slice's end is before the start of any axis; so is the next one",
        same_graph=False,
    ),
    Explained(
        "reshaping._TO_THE_START",
        ".*",
        "as above: any number below minus an axis's size is its start",
        same_graph=False,
    ),
    other_way(
        "elementwise.divide",
        r"1 -> [02]",
        "what integers are divided by where the divisor is 0: the quotient is not used",
    ),
    other_way("scalar._over", r"0 -> 1", "what the infinite quotient is replaced by before the type's least number is"),
    Explained(
        "creation._filled",
        r"product\(shape\) (<=|<|>) 4096 -> .*|409[567] -> 409[567]",
        "a constant, and the same number spread at run time: two ways of one tensor; which one is a question of size",
        same_graph=False,
    ),
    other_way(
        "detection._survivors_first",
        r"0.5 -> .*",
        "a bound between the 0 of those that are out and the 1 and more of those that are in",
    ),
    other_way("detection.multibox_detection", r"0 -> 1", "only the shape of the column is used", on="_full_like"),
    other_way("linalg._triangle", r"1 -> 2", "a flag: any number but 0 is true"),
    other_way("creation._open_range", r"1 -> 0", "dividing by 1 changes nothing", on="a.repeat != 1"),
    Explained("quantized.quantized_fully_connected", r"6 -> 7", "the end of a slice of six: nothing lies behind"),
    Explained(
        "creation.diag_indices_from", r"0 -> 1", "all sizes are equal, or it is refused before", on="data.shape[0]"
    ),
    other_way(
        "detection._greedy", r"0.5 -> .*", "a bound between the 0 of those that are out and the 1 of those that are in"
    ),
    other_way("reshaping.tile", r"1 -> 0", "repeating once changes nothing", on="count == 1"),
    other_way(
        "ranges._digits", r"256 -> 257", "one digit more, which is the sign alone: the products join to the same sum"
    ),
    other_way(
        "ranges.exact_product",
        r"'Round' -> 'Floor'",
        "whole numbers in float32, exactly; an engine that computes otherwise may miss them",
    ),
    other_way(
        "special._sine",
        r"'Round' -> 'Floor'",
        "the whole number below instead of the next one: the sign goes with it; near the poles x's own rounding is as large",
    ),
    Explained(
        "image._along",
        r"old - 1 -> old \+ 1",
        "floor(i * old / new) of i < new is below old: a bound that is not met",
        on="np.floor(np.arange(new)",
    ),
    Explained(
        "convolution._Pool._filled",
        r"\(\*before, .*after.* -> .*",
        "all of them are asked for, in any order",
        on="all(",
    ),
    other_way("indexing._pasted", r"1 -> 0", "joining one piece is the piece", on="len(pieces) == 1"),
    other_way("linalg._stacked", r"1 -> 0", "joining one part is the part", on="len(parts) == 1"),
    other_way(
        "recurrent._side_by_side", r"1 -> 0", "one direction beside none is that direction", on="directions == 1"
    ),
    Explained("linalg._small", r"1 -> 2", "the last axis or the one before: the matrix is square"),
    Explained(
        "reshaping.broadcast_like",
        r"left is None or right is None -> .* and .*",
        "both are given or none is, or it is refused before",
    ),
    other_way(
        "softmax.softmax_output", r".*axis=data.rank - 1\) -> .*type=data.type\)", "Softmax's default is the last axis"
    ),
    Explained(
        "resize.bilinear_resize",
        r"\(\*data.shape\[2:\], .*sizes.* -> .*",
        "all of them are asked whether they are known, in any order",
        on="all(",
    ),
    other_way("detection.multibox_detection", r"6 -> 7", "the end of a slice of six: nothing lies behind", on="[6]"),
    other_way("detection._sampling_matrix", r"samples > 1 -> samples >= 1", "dividing by 1 changes nothing"),
    other_way("spatial._sampled", r"1 -> 2", "a flag: any number but 0 is true", on="GridSample"),
    Explained("creation.logspace", r"0 -> 1", "one number has no distance to another", on="if pieces > 0"),
    Explained(
        "sorting._edges",
        r"a.bin_cnt -> wrong_default.*",
        "read only where it is given",
        on="np.asarray",
    ),
    other_way(
        "fusion.End.quantize",
        r"kind_of\(self.after\) not in _COMMUTING -> .* in _COMMUTING",
        "oneDNN fuses no activation behind a sum but relu: scaled before or behind it",
    ),
    other_way(
        "elementwise.clip", r"-np.inf -> np.inf", "-infinity limits nothing, written or not; TensorRT refuses it"
    ),
    other_way("detection.roi_align", r"5 -> 6", "the end of a slice of five: nothing lies behind", on="[5]"),
    other_way("recurrent._step", r"1 -> 2", "a flag: any number but 0 is true", on="transB"),
    other_way("indexing.unravel", r"len\(parts\) > 1 -> len\(parts\) >= 1", "joining one part is the part"),
    other_way("indexing.take", r"a.mode -> ignored.*", "an index that is inside is not moved", on='!= "raise"'),
    other_way("sorting.ranked", r"np.int32 -> np.float32", "either holds numbers of 8 bits", on="if narrow"),
    other_way("linalg._identity", r"2 -> 1", "one matrix expanded to its own shape", on="like.rank == 2"),
    other_way("linalg._joined", r"1 -> 2", "both of the last axes have the size 1", on="x.rank - 1"),
    other_way("ranges._scale", r"1 -> 0", "one number, with an axis or without", on="step.shape == (1,)"),
    other_way("ranges._digits", r"width < 256 -> width <= 256", "one digit more, which is the sign alone, as above"),
    other_way(
        "ranges.reinterpreted",
        r"np.int32 -> np.float32",
        "what a float outside of 8 bits becomes is left open by ONNX; ONNX Runtime wraps it as an integer",
    ),
    Explained(
        "ranges.exact_product", r"np.int32 -> np.float32", "the digits of whole numbers, in either type", on="digits ="
    ),
    other_way("spatial.correlation", r".*own, near.* -> .*near, own.*", "the absolute value is asked for", on="Abs"),
    other_way("quantized.quantized_elemwise_add", r"0 -> 1", "both terms have one shape", on="terms[0].type"),
    other_way(
        "fusion.End.quantize",
        r"y = applied\(cx, self.after, y\) -> pass",
        "relu alone comes behind a sum, and what it leaves is unsigned: 8 bits of those end at 0",
    ),
    other_way(
        "activation.leaky_relu",
        r"cx.op\('Selu'.*",
        "ONNX's defaults are the numbers; TensorRT's parser has others",
    ),
    other_way(
        "normalization.layer_norm",
        r".*axis=last, .* -> .*type=x.type, epsilon=a.eps\)",
        "LayerNormalization's default is the last axis",
    ),
    Explained("sorting.topk", r"a.ret_typ -> wrong_default.*", "no default is a mask", on='== "mask"'),
    Explained("convolution.deconvolution", r"a.kernel -> off_by_one.*", "its length is the same", on="len(a.kernel)"),
    Explained(
        "creation._window.<locals>.window", r"np.float32 -> np.int32", "a whole number in either type", on="last ="
    ),
    Explained("softmax._inside", r"1 -> 0", "the sizes of a constant are all known", on="isinstance(s, int) else"),
    Explained(
        "scalar._np_comparison",
        r"a.scalar -> wrong_default.*",
        "MXNet writes it always",
        on="np.iinfo",
    ),
    # --- conditions that mean the same wherever they are asked
    Explained(
        "indexing._window",
        r"0 -> 1",
        "only a window outside of the data takes the other way: MXNet refuses it",
        on="count == size",
    ),
    Explained(
        "ranges.exact_product",
        r"terms \* largest \* 128 < _EXACT -> .* <= _EXACT",
        "float32 holds 2^24 itself too",
    ),
    Explained(
        "resize._resized",
        r"a.mode -> wrong_default.*",
        "the default and the other one are both not among them",
        on="in _SIZES",
    ),
    Explained(
        "scalar._np_comparison",
        r"math.floor\(a.scalar\) -> math.ceil\(a.scalar\)",
        "compared with the number itself: both are equal to it exactly if it is whole",
    ),
    Explained(
        "reduction.average",
        r"not a.weighted or weights is None -> .*and.*",
        "MXNet's operator has the second input exactly if weighted is true",
    ),
    Explained(
        "activation.leaky_relu",
        r"np.float32 -> np.int32",
        "the 2 that a sum is halved by: the half of a float32 is one in either type",
    ),
    Explained(
        "sequence.sequence_mask",
        r"1 - a.axis -> 1 \+ a.axis",
        "where an axis is inserted: axes count modulo the rank, and 2 of two is 0 (where a size is read, it is caught)",
        same_graph=True,
    ),
    Explained("reduction.moments", r"a.axes -> off_by_one.*", "whether there are axes: as many as before"),
    Explained("softmax._wider", r".* > .* -> .* >= .*", "float types of one size are one type: the cast is none"),
    Explained("elementwise.promoted", r".* > .* -> .* >= .*", "equal sizes are refused before"),
    Explained("resize._places", r"np.float32 -> np.int32", "0 in either type", on="np.maximum"),
    other_way(
        "fusion.quantize_weights",
        r"np.float32 -> np.int32",
        "a quotient rounded once instead of twice: another last digit of a scale, which rounds the weights all the same",
        on="_LARGEST_BIAS",
    ),
    # --- defaults that MXNet refuses, and so does the lowering
    Explained("creation.zeros_without_dtype", r"a.dtype -> wrong_default.*", "without a dtype it is refused"),
    Explained(
        "spatial.spatial_transformer",
        r"a.target_shape -> wrong_default.*",
        "without a target_shape it is refused, by MXNet too",
    ),
    Explained(
        "convolution.pooling_v1",
        r"a.pool_type -> wrong_default.*",
        "the default is max, which has gone another way",
        on="geometry.sum",
    ),
    Explained(
        "detection.box_decode", r"a.clip -> wrong_default.*", "0 clips as little as -1: only positive numbers do"
    ),
    Explained("reshaping.roll", r"a.shift -> wrong_default.*", "without a shift it is refused"),
    # --- two ways of one answer
    other_way(
        "special.erfinv",
        r"'Neg' -> 'Abs'",
        "the logarithm of (1 - x)(1 + x), which is 1 at most in float32 too: it has no positive sign to lose",
    ),
    other_way(
        "special._log_gamma_of_positive",
        r"3 -> 4",
        "below 8 the way down to 2 may begin with a step of 5: other sums of the same whole numbers",
    ),
    other_way(
        "resize.adaptive_average_pooling",
        r"width % columns -> width \+ columns",
        "the way for any sizes averages the windows of equal size too",
    ),
    other_way(
        "spatial._deformed",
        r".* -> (?!.*kernel_shape).*strides=.*",
        "DeformConv's default is the size of its weight",
    ),
    other_way(
        "spatial.deformable_convolution",
        r"cx.op\('Max', places, .*\) -> cx.op\('Max', places\)",
        "a place below 0 is masked, wherever it is read",
    ),
    Explained("ranges._EXACT", ".*16777217", "2^24 itself is a float32 too"),
    Explained("ranges._largest_sum", "0 -> 1", "a sum of 1 is as far below the bound as one of 0", on="initial"),
    Explained(
        "creation._inferred_range", r"repeat > 1 -> repeat >= 1", "dividing by 1 changes nothing", same_graph=False
    ),
    Explained("fusion.quantize_weights", "1 -> 2", "NumPy takes any negative size for the open one", on="rows = "),
    Explained("linalg._picked", "1 -> 2", "the last axis or the one before: the matrix is square", on="data.shape[-1]"),
    Explained("reshaping.trace", r".* < 4 -> .* <= 4", "an int32 as an int32 is itself"),
    Explained("image._new_size", r"a.size -> wrong_default.*", "without a size it is refused, by MXNet too"),
    Explained(
        "special._exp_in_float64", r"0 -> 1", "its inputs have one type, or it is refused", on="dtype = inputs[0].dtype"
    ),
    *(
        Explained(f"creation.{name}", r"0\.0 -> 0\.1", "one number alone is start: no step is taken")
        for name in ("linspace", "logspace")
    ),
    other_way("reshaping._rolled", r"0 -> 1", "of no elements, whatever is cut is nothing", on="if size else 0"),
    other_way("reshaping.cut", r"1 -> 0", "a step of 1 is Slice's default", on="step != 1"),
    other_way("indexing._open_slice", r"1 -> 0", "a step of 1 is Slice's default", on="if step != 1"),
    other_way("spatial.correlation", r"1 -> 0", "a slice of everything in steps of 1", on="if step > 1 else y"),
    other_way(
        "resize._by_weight",
        r".* -> (?!.*kernel_shape).*strides=.*",
        "ConvTranspose's default is the size of its weight",
    ),
    other_way(
        "fusion.product_with_bias",
        r"bias.const is not None -> bias.const is None",
        "a bias that the product adds, or that is added behind it",
        on="if bias is None or bias.const",
    ),
    Explained(
        "scalar.COMPARISONS", r".*'logical_.*", "read once, when operators are registered: later changes are late"
    ),
    other_way("detection._sampling_matrix", r"1 -> 0", "dividing by 1 changes nothing", on="if samples > 1"),
    other_way(
        "convolution.convolved",
        r".*",
        "zeros around the data, or that Conv adds itself: TensorRT lacks kernels for some of that",
        on="if any(p > (k - 1) * e",
    ),
    Explained(
        "detection._shifted_anchors",
        r"np.float32 -> np.int32",
        "what is 1 and more loses nothing when 1 is taken away, in single precision as in double",
        on="one = ",
    ),
    Explained(
        "reduction._legacy_axes",
        r"a.axis -> off_by_one.*",
        "whether there are axes: as many as before",
        on="if not a.axis",
    ),
    other_way(
        "reduction.percentile",
        r"cx.reshape\(part, .*\) -> part",
        "one part behind the other along the first axis, whatever its size: reshaped afterwards",
    ),
    other_way("detection._sampling_matrix", r"1 -> 0", "the second axis has one element", on="steps = "),
    Explained(
        "quantized.quantized_conv",
        r"1 -> 2",
        "how many products a sum has decides whether weights are taken apart; MXNet rounds sums beyond 2^24 itself",
        on="terms = ",
        equivalent=False,
    ),
    Explained("spatial._affine_grid", "1 -> 2", "NumPy takes any negative size for the open one", on=".reshape(3, -1)"),
    Explained(
        "indexing.slice_axis", r"isinstance\(size, int\) -> not .*", "what is asked of a known size only refuses"
    ),
    Explained("resize._places", r"np.float32 -> np.int32", "0 in either type", on="np.float32(0)"),
    Explained("elementwise.add_n", "0 -> 1", "all are compared with one of them, or with another", on="_check_equal"),
    Explained(
        "padding._summed", "1 -> 0", "the longest list is empty only where nothing is added up at all", on="width = max"
    ),
    Explained(
        "detection.multibox_detection",
        r"a.nms_topk -> wrong_default.*",
        "0 sets no limit, as -1 does: only positive numbers do",
    ),
    other_way(
        "special.gamma", r"'Floor' -> 'Ceil'", "a half is equal to neither, and a whole number to both", on="odd = "
    ),
    other_way("elementwise.around", r"a.decimals -> wrong_default.*", "rounded after a multiplication by 1"),
    Explained("creation.identity", r"a\['shape'\] -> wrong_default.*", "without a shape it is refused, by MXNet too"),
    Explained("linalg._one_at_least", "0 -> 1", "axes count modulo the rank, which is 1 with the new one"),
    Explained("detection._shifted_anchors", r"np.float32 -> np.int32", "the stride is a whole number", on="side = "),
    other_way(
        "convolution.convolved", r".* -> (?!.*kernel_shape).*strides=.*", "Conv's default is the size of its weight"
    ),
    other_way(
        "convolution.deconvolution",
        r".* -> (?!.*kernel_shape).*strides=.*",
        "ConvTranspose's default is the size of its weight",
    ),
    other_way("fusion.Weights.real", r".*cx.const\(zero\), .* -> (?!.*zero).*", "without a zero point it is 0"),
    other_way("elementwise._relu", r"is_float\(x\) -> not .*", "Relu and the maximum with 0 are the same, of NaN too"),
    other_way(
        "elementwise.cast",
        r"cx.cast\(data, np.int32\) -> data",
        "ONNX Runtime's own conversion to 8 bits goes by way of int too; other engines' does not",
    ),
    other_way(
        "elementwise._of_infinite_divisor",
        r"0 -> 1",
        "the product with an infinite number is infinite, or NaN: below 1 is below 0",
        on="other_sign",
    ),
    other_way(
        "indexing.chosen", r"np.int32 -> np.float32", "a float32 holds every integer of 8 bits, for which it stands"
    ),
    other_way("joining.khatri_rao", r"cx.unsqueeze\(matrix, 0\) -> matrix", "it broadcasts by leading axes of size 1"),
    other_way(
        "special._shifted",
        r"0 -> 1",
        "which of two steps has its product kept apart: neither product leaves float32",
        on="_STEPS[0]",
    ),
    Explained(
        "convolution._global_pool", r"a.p_value -> wrong_default.*", "lp without a p_value is refused, by MXNet too"
    ),
    other_way(
        "reduction.percentile",
        r".*axis=-1, largest=0\) -> .*rows.shape\)\], largest=0\)",
        "TopK's default is the last axis",
    ),
    Explained(
        "detection._by_position", "1 -> 2", "NumPy takes any negative size for the open one", on="own.reshape(-1)"
    ),
    Explained(
        "recurrent.rnn",
        r"a.use_sequence_length and rest -> .* or rest",
        "the input of lengths is there exactly if the attribute is set, or it is refused",
    ),
    other_way(
        "onednn.fused_convolution",
        r".*summand is None.*|.*steps.const.*",
        "real numbers or whole ones that are scaled afterwards: the sums are the same, for float32 holds the whole ones",
        on="if summand is None and steps.const",
    ),
    other_way(
        "indexing.one_hot",
        r"a.(on|off)_value -> swapped.*",
        "whether the two numbers are 1 and 0 chooses the short way of what the general way gives too",
        on="== (1, 0)",
    ),
    other_way(
        "elementwise._of_infinite_divisor",
        r"'Add' -> 'Sub'",
        "what is added is 0 or NaN: taking it away is the same, but for the sign of a 0, which is not judged",
    ),
    other_way(
        "elementwise.nan_to_num",
        r"False -> True",
        "-inf is replaced by the largest number, and that by the least in the next step",
        on="like(cx, high",
    ),
    other_way(
        "sorting.topk",
        r"a.ret_typ -> ignored.*",
        "where the values are asked for alone: they come first, and nobody reads the positions behind them",
        on='== "value"',
    ),
    other_way(
        "matrix._einsum",
        r".*",
        "one sum of products, by Einsum or by elementary operators: TensorRT's Einsum takes no integers and no single input",
        on="if len(values) == 1 or kind",
    ),
    other_way(
        "indexing.chosen",
        r".* == 'b' or .* -> .* and .*",
        "ONNX Runtime chooses between small integers as between wide ones; they are widened for TensorRT",
    ),
    other_way(
        "reduction.softmax_cross_entropy",
        r"False -> True",
        "the axes of size 1 that are kept are reshaped away afterwards",
    ),
    other_way(
        "normalization.layer_norm",
        r"a.output_mean_var -> wrong_default.*",
        "outputs that nobody reads come behind the first",
    ),
    other_way(
        "matrix.einsum",
        r".*_without_ones.* -> pass",
        "Einsum broadcasts axes of size 1 as they are, in ONNX Runtime: leaving them out is for TensorRT",
    ),
    other_way(
        "ranges.as_int32",
        r".*_LARGEST_INT32.* -> (?!.*_LARGEST).*cx.op.*",
        "a sum has the range of both terms together, 127.5 steps each: what has 127 at most stays below the last int32",
    ),
    Explained("reduction._percents", r"a.q_scalar -> wrong_default.*", "without q and q_scalar it is refused before"),
    other_way(
        "special._shifted",
        r"1.25 -> .*|0.25 -> .*",
        "where the series about 2 ends: up to 0.975 from there it is good to 2e-8, less than a rounding of float32",
    ),
    other_way(
        "reduction.multi_sum_sq", r"False -> True", "the axes of size 1 that are kept are reshaped away afterwards"
    ),
    other_way(
        "softmax.softmax_output",
        r".*axis=1\) -> .*",
        "Softmax's default is the last axis: of two, as here, that is axis 1",
        on="rows",
    ),
    other_way(
        "reduction.softmax_cross_entropy", r".*LogSoftmax.*axis=1\) -> .*", "of two axes, 1 is LogSoftmax's default"
    ),
    other_way("ranges._scale", r".*reshape.* -> step", "ONNX Runtime takes a scale of one element as a scalar"),
    other_way(
        "reduction._register_np_truth.<locals>.lower", r"np.int32 -> np.float32", "0 and 1 are the same in either type"
    ),
    other_way("matrix.einsum", r"1 -> 0", "labels that are kept too long are summed at the end", on="enumerate"),
    other_way(
        "matrix.contract", r"lhs.rank (- 1|> 1) -> .*", "an Einsum in place of a MatMul", on="list(right) == [0]"
    ),
    other_way("image._flipped", r"31 -> 30|2 -> 3", "either end is before the first"),
    Explained("image._by_channel", r"1 -> 2", "NumPy takes any negative size as the open one", on="reshape(-1"),
    Explained("resize._averages", r"0 -> 1", "an axis counts modulo the rank, which is 1", on="cx.squeeze(total"),
    other_way("indexing._wrapped", r"places.const < 0 -> places.const <= 0", "0 is chosen as it is"),
    other_way("elementwise.allclose", r".*'Sub', x, y.* -> .*'Sub', y, x.*", "it is the gap's size that counts"),
    Explained("elementwise.where", r"x.rank > 1 -> x.rank >= 1", "of one axis it has that shape already"),
    other_way(
        "linalg._Elimination._step",
        r"1 -> 2",
        "the largest pivot that is left is 0 only where its whole column is, and nothing is eliminated",
        on="zero, one",
    ),
    Explained("reduction.norm", r"a.ord -> wrong_default.*", "what is not 1 is 2", on="a.ord == 1"),
    Explained("padding._geometry", r"a.kernel -> off_by_one.*", "its length is the same", on="len(a.kernel)"),
    other_way("creation.diag_indices_from", r"cx.unsqueeze.* -> counted.*", "Expand adds leading axes itself"),
    Explained(
        "creation._inferred_range", r"-length // repeat -> .*", "what is too much is cut off", ("wrong arithmetic",)
    ),
    other_way("creation._open_range", r"a.repeat -> wrong_default.*", "repeating once changes nothing", on="!= 1"),
    Explained("matrix._einsum_dtype", r"4 -> 3", "no type has three bytes"),
    Explained("ranges._digits", r"256 -> 255", "255 is a power of no base that is asked for"),
    other_way(
        "indexing.one_hot", r"a.off_value -> wrong_default.*", "chosen from 1 and 0 it is the same", on="== (1, 0)"
    ),
    Explained(
        "indexing._wrapped",
        r"(not|places.const is not None and) .* -> .*",
        "ONNX Runtime's GatherND counts negative coordinates from the end itself; TensorRT's does not",
        same_graph=False,
        equivalent=False,
    ),
    Explained(
        "detection.multibox_prior",
        r"a.steps -> wrong_default.*",
        "a step that is not positive is the inverse of the size, whichever it is",
        on="zip(a.steps",
    ),
]


def explanation(fault: Fault) -> Explained | None:
    """The entry that a fault fits, if there is one."""
    return next((item for item in EXPLAINED if item.fits(fault)), None)
