"""Detection: anchors, box arithmetic, non-maximum suppression, pooling of regions.

Greedy suppression is the fixed point of "a box survives if no surviving box before it suppresses it". A Loop reaches it
in as many steps as the longest chain of suppressions (a handful), each one product of a vector and a matrix; after k
steps the first k decisions are final, so it is exact. Sizes stay static, as MXNet's are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..dims import is_static, product
from ..graph import TensorType
from .context import Array, Context, Value, static
from .registry import Unsupported, operator, refuse
from .schema import Attributes

# --- building blocks -------------------------------------------------------------------------------------------------


def _columns(cx: Context, x: Value, *places: int) -> list[Value]:
    """Some columns of the last axis, which stays with size 1."""
    last = x.rank - 1
    return [cx.slice(x, [place], [place + 1], [last]) for place in places]


def _flip(cx: Context, x: Value) -> Value:
    """The last two axes exchanged."""
    return cx.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


def _number(cx: Context, value: float, like: Value) -> Value:
    return cx.const(np.array(value, like.dtype))


def _full_like(cx: Context, x: Value, value: float) -> Value:
    """A number in x's shape and type."""
    if is_static(x.shape):
        return cx.const(np.full(tuple(x.shape), value, x.dtype))
    return cx.op("Expand", _number(cx, value, x), cx.op("Shape", x), type=x.type)


def _zero_floor(cx: Context, x: Value) -> Value:
    return cx.op("Max", x, _number(cx, 0, x))


def _half(cx: Context, x: Value) -> Value:
    return cx.op("Mul", x, _number(cx, 0.5, x))


def _corners(cx: Context, boxes: Value, center: bool) -> list[Value]:
    """left, top, right, bottom of boxes (..., 4), each (..., 1)."""
    a, b, c, d = _columns(cx, boxes, 0, 1, 2, 3)
    if not center:
        return [a, b, c, d]
    w, h = _half(cx, c), _half(cx, d)
    return [cx.op("Sub", a, w), cx.op("Sub", b, h), cx.op("Add", a, w), cx.op("Add", b, h)]


def _area(cx: Context, boxes: Value, center: bool) -> Value:
    """(..., 1); a box with a negative side has no area."""
    a, b, c, d = _columns(cx, boxes, 0, 1, 2, 3)
    width, height = (c, d) if center else (cx.op("Sub", c, a), cx.op("Sub", d, b))
    return cx.op("Mul", _zero_floor(cx, width), _zero_floor(cx, height))


def _overlaps(cx: Context, left: Sequence[Value], right: Sequence[Value]) -> tuple[Value, Value]:
    """Intersection and intersection over union of boxes given as left, top, right, bottom and area, broadcast."""
    sides = []
    for low, high in ((0, 2), (1, 3)):
        start, end = cx.op("Max", left[low], right[low]), cx.op("Min", left[high], right[high])
        sides.append(_zero_floor(cx, cx.op("Sub", end, start)))
    inter = cx.op("Mul", *sides)
    return inter, cx.op("Div", inter, cx.op("Sub", cx.op("Add", left[4], right[4]), inter))


def _described(cx: Context, boxes: Value, center: bool) -> list[Value]:
    """left, top, right, bottom and area of boxes (..., 4), each (..., 1)."""
    return [*_corners(cx, boxes, center), _area(cx, boxes, center)]


def _later(cx: Context, count: int) -> Value:
    """(1, K, K): whether the column comes after the row."""
    return cx.const(np.triu(np.ones((1, count, count), bool), 1))


def _greedy(cx: Context, valid: Value, suppresses: Value) -> Value:
    """Which boxes survive: valid is bool (B, K), suppresses (B, K, K) bool, true only above the diagonal."""
    count = static(valid.shape[1], "the number of boxes")
    start = cx.cast(valid, np.float32)
    matrix = cx.cast(suppresses, np.float32)
    flag = TensorType(np.dtype(bool), ())
    step = TensorType(np.dtype(np.int64), ())

    def body(_index: Value, _going: Value, kept: Value) -> list[Value]:
        hits = cx.squeeze(cx.op("MatMul", cx.unsqueeze(kept, 1), matrix), 1)
        free = cx.cast(cx.op("Less", hits, cx.const(0.5, np.float32)), np.float32)
        after = cx.op("Mul", free, start, type=start.type)
        change = cx.op("Abs", cx.op("Sub", after, kept))
        changed = cx.op("Greater", cx.reduce("ReduceMax", change, [0, 1]), cx.const(0.5, np.float32))
        return [changed, after]

    graph, _ = cx.subgraph("suppress", [step, flag, start.type], body)
    kept = cx.op("Loop", cx.const(count, np.int64), cx.const(True), start, type=start.type, body=graph)
    return cx.op("Greater", kept, cx.const(0.5, np.float32))


def _rows(cx: Context, x: Value, index: Value) -> Value:
    """Rows of x (B, N, W) by index (B, K), batch by batch: (B, K, W)."""
    kind = TensorType(x.dtype, (*index.shape, x.shape[2]))
    return cx.op("GatherND", x, cx.unsqueeze(index, -1), type=kind, batch_dims=1)


def _top(cx: Context, x: Value, count: int) -> tuple[Value, Value]:
    """The largest along the last axis in falling order, the first of equals first; values and indices."""
    shape = (*x.shape[:-1], count)
    types = [TensorType(x.dtype, shape), TensorType(np.dtype(np.int64), shape)]
    values, index = cx.ops("TopK", x, cx.ints(count), outputs=2, types=types, axis=-1, largest=1, sorted=1)
    return values, index


def _survivors_first(cx: Context, kept: Value) -> tuple[Value, Value]:
    """An order (B, K) in which survivors come first, stably; and who survives in that order, (B, K) bool."""
    count = static(kept.shape[1], "the number of boxes")
    falling = np.arange(count, 0, -1, dtype=np.float32)[None]
    keys = cx.op("Mul", cx.cast(kept, np.float32), cx.const(falling), type=TensorType(np.dtype(np.float32), kept.shape))
    values, order = _top(cx, keys, count)
    return order, cx.op("Greater", values, cx.const(0.5, np.float32))


def _filled_up(cx: Context, x: Value, rows: int) -> Value:
    """x (B, K, W) with rows of -1 behind it, so that it has that many."""
    missing = rows - static(x.shape[1], "the number of boxes")
    if not missing:
        return x
    kind = TensorType(x.dtype, (x.shape[0], rows, x.shape[2]))
    return cx.op("Pad", x, cx.ints(0, 0, 0, 0, missing, 0), _number(cx, -1, x), type=kind)


# --- boxes -----------------------------------------------------------------------------------------------------------


@operator("_contrib_box_iou")
def box_iou(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """Intersection over union of every pair of boxes; 0 where they do not meet."""
    center = a.format == "center"
    left = [cx.unsqueeze(v, *range(lhs.rank, lhs.rank + rhs.rank - 2)) for v in _described(cx, lhs, center)]
    right = [cx.squeeze(v, -1) for v in _described(cx, rhs, center)]
    inter, ratio = _overlaps(cx, left, right)
    apart = cx.op("LessOrEqual", inter, _number(cx, 0, inter))
    kind = TensorType(lhs.dtype, (*lhs.shape[:-1], *rhs.shape[:-1]))
    return cx.op("Where", apart, _number(cx, 0, inter), ratio, type=kind)


@operator("_contrib_box_decode")
def box_decode(cx: Context, a: Attributes, data: Value, anchors: Value) -> Value:
    """Offsets from anchors as corners; ``clip`` bounds the log-sizes from above if it is positive."""
    dx, dy, dw, dh = _columns(cx, data, 0, 1, 2, 3)
    ax, ay, aw, ah = _centers(cx, anchors) if a.format == "corner" else _columns(cx, anchors, 0, 1, 2, 3)
    results = []
    for delta, size, std, origin, side, std_size in (
        (dx, dw, a.std0, ax, aw, a.std2),
        (dy, dh, a.std1, ay, ah, a.std3),
    ):
        middle = cx.op("Add", cx.op("Mul", cx.op("Mul", delta, _number(cx, std, data)), side), origin)
        scaled = cx.op("Mul", size, _number(cx, std_size, data))
        if a.clip > 0:
            scaled = cx.op("Min", scaled, _number(cx, a.clip, data))
        half = _half(cx, cx.op("Mul", cx.op("Exp", scaled), side))
        results.append((cx.op("Sub", middle, half), cx.op("Add", middle, half)))
    (left, right), (top, bottom) = results
    return cx.op("Concat", left, top, right, bottom, axis=data.rank - 1, type=data.type)


def _centers(cx: Context, boxes: Value) -> list[Value]:
    """x, y, width, height of boxes given by corners."""
    x1, y1, x2, y2 = _columns(cx, boxes, 0, 1, 2, 3)
    middles = [_half(cx, cx.op("Add", low, high)) for low, high in ((x1, x2), (y1, y2))]
    return [*middles, cx.op("Sub", x2, x1), cx.op("Sub", y2, y1)]


@operator("_contrib_box_encode")
def box_encode(
    cx: Context, a: Attributes, samples: Value, matches: Value, anchors: Value, refs: Value, means: Value, stds: Value
) -> list[Value]:
    """Matched references as normalized offsets from anchors, and which of them count (samples above 0.5)."""
    matched = _rows(cx, refs, cx.cast(matches, np.int64))
    rx, ry, rw, rh = _centers(cx, matched)
    ax, ay, aw, ah = _centers(cx, anchors)
    offsets = [
        cx.op("Div", cx.op("Sub", rx, ax), aw),
        cx.op("Div", cx.op("Sub", ry, ay), ah),
        cx.op("Log", cx.op("Div", rw, aw)),
        cx.op("Log", cx.op("Div", rh, ah)),
    ]
    joined = cx.op("Concat", *offsets, axis=2)
    scaled = cx.op("Div", cx.op("Sub", joined, means), stds)
    counts = cx.unsqueeze(cx.op("Greater", samples, _number(cx, 0.5, samples)), 2)
    zero, one = _number(cx, 0, anchors), _number(cx, 1, anchors)
    masks = cx.expand(cx.op("Where", counts, one, zero), anchors.shape)
    return [cx.op("Where", counts, scaled, zero), masks]


@operator("_contrib_bipartite_matching")
def bipartite_matching(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """Greedy one-to-one matching of rows and columns by score, the best pair first; -1 where there is no partner.

    MXNet stops after more than ``topk`` matches, so one more than ``topk`` is made.
    """
    rows, cols = (static(size, "the size of the score matrix") for size in data.shape[-2:])
    batch = product(data.shape[:-2])
    sign = -1 if a.is_ascend else 1
    scores = cx.reshape(data, (batch, rows * cols))
    if a.is_ascend:
        scores = cx.op("Neg", scores)
    limit = min(rows, cols, a.topk + 1) if a.topk > 0 else min(rows, cols)
    ends = np.cumsum([rows * cols, rows, cols]).tolist()
    markers = [_full_like(cx, cx.slice(scores, [0], [size], [1]), -1) for size in (rows, cols)]
    start = cx.concat([scores, *markers], 1)
    threshold = _number(cx, sign * a.threshold, data)
    flag, step = TensorType(np.dtype(bool), ()), TensorType(np.dtype(np.int64), ())

    def body(_index: Value, going: Value, state: Value) -> list[Value]:
        left, row_marks, col_marks = (cx.slice(state, [b], [e], [1]) for b, e in zip([0, *ends], ends))
        best, place = _top(cx, left, 1)
        good = cx.op("Greater", best, threshold)
        row = cx.op("Div", place, cx.ints(cols))
        col = cx.op("Sub", place, cx.op("Mul", row, cx.ints(cols)))
        in_row = cx.op("And", cx.op("Equal", row, cx.const(np.arange(rows)[None])), good)
        in_col = cx.op("And", cx.op("Equal", col, cx.const(np.arange(cols)[None])), good)
        row_marks = cx.op("Where", in_row, cx.cast(col, data.dtype), row_marks, type=row_marks.type)
        col_marks = cx.op("Where", in_col, cx.cast(row, data.dtype), col_marks, type=col_marks.type)
        used = cx.op("Or", cx.unsqueeze(in_row, 2), cx.unsqueeze(in_col, 1))
        used = cx.reshape(used, (batch, rows * cols))
        left = cx.op("Where", used, _number(cx, -math.inf, data), left, type=left.type)
        return [cx.op("Identity", going, type=flag), cx.concat([left, row_marks, col_marks], 1)]

    # One state, not three: TensorRT 10.6 gives wrong numbers where several depend on each other.
    graph, _ = cx.subgraph("match", [step, flag, start.type], body)
    found = cx.op("Loop", cx.const(limit, np.int64), cx.const(True), start, type=start.type, body=graph)
    row_marks = cx.slice(found, [ends[0]], [ends[1]], [1])
    col_marks = cx.slice(found, [ends[1]], [ends[2]], [1])
    return [cx.reshape(row_marks, data.shape[:-1]), cx.reshape(col_marks, (*data.shape[:-2], cols))]


# --- suppression -----------------------------------------------------------------------------------------------------


@operator("_contrib_box_nms")
def box_nms(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """Non-maximum suppression; survivors by falling score, then rows of -1; second, their flat indices.

    Per class (column ``id_index``) unless ``force_suppress``. A box is a candidate if its score is above
    ``valid_thresh`` and its class is not ``background_id``; the best ``topk`` of them take part. The output format is
    converted as MXNet does: only for boxes whose first coordinate is not negative.
    """
    count, width = static(data.shape[-2], "the number of boxes"), static(data.shape[-1], "the width of a box")
    batch = product(data.shape[:-2])
    x = cx.reshape(data, (batch, count, width))
    limit = count if a.topk < 0 else min(count, a.topk)
    first, classes = a.coord_start, a.id_index
    if limit < 1:
        a.ignore(
            "overlap_thresh",
            "valid_thresh",
            "score_index",
            "background_id",
            "force_suppress",
            "in_format",
            "out_format",
        )
        size = static(batch, "the number of batches (with topk=0)") * count
        return [
            cx.op("Identity", data),
            cx.const(np.arange(size).reshape([static(s, "a size") for s in data.shape[:-1]] + [1]), data.dtype),
        ]
    score = cx.squeeze(_columns(cx, x, a.score_index)[0], 2)
    valid = cx.op("Greater", score, _number(cx, a.valid_thresh, x))
    if classes >= 0:
        kind = cx.squeeze(_columns(cx, x, classes)[0], 2)
        background = cx.op("Equal", kind, _number(cx, a.background_id, x))
        valid = cx.op("And", valid, cx.op("Not", background))
    else:
        a.ignore("background_id")
    keys = cx.op("Where", valid, score, _number(cx, -math.inf, x), type=score.type)
    values, index = _top(cx, keys, limit)
    rows = _rows(cx, x, index)
    candidates = cx.op("Greater", values, _number(cx, -math.inf, x))
    boxes = cx.slice(rows, [first], [first + 4], [2])
    described = _described(cx, boxes, a.in_format == "center")
    _, ratio = _overlaps(cx, described, [_flip(cx, v) for v in described])
    hits = cx.op("And", cx.op("Greater", ratio, _number(cx, a.overlap_thresh, x)), _later(cx, limit))
    if classes >= 0 and not a.force_suppress:
        column = _columns(cx, rows, classes)[0]
        hits = cx.op("And", hits, cx.op("Equal", column, _flip(cx, column)))
    else:
        a.ignore("force_suppress")
    order, alive = _survivors_first(cx, _greedy(cx, candidates, hits))
    alive = cx.unsqueeze(alive, 2)
    none = _number(cx, -1, x)
    out = cx.op("Where", alive, _rows(cx, rows, order), none)
    if a.in_format != a.out_format:
        out = _converted(cx, out, first, to_center=a.out_format == "center")
    flat = cx.cast(cx.op("GatherElements", index, order, axis=1), x.dtype)
    if batch != 1:
        starts = cx.op("Mul", _batch_numbers(cx, x), _number(cx, count, x))
        flat = cx.op("Add", flat, starts)
    record = cx.op("Where", alive, cx.unsqueeze(flat, 2), none)
    return [
        cx.reshape(_filled_up(cx, out, count), data.shape),
        cx.reshape(_filled_up(cx, record, count), (*data.shape[:-1], 1)),
    ]


def _batch_numbers(cx: Context, x: Value) -> Value:
    """(B, 1): 0, 1, 2, ... in x's type."""
    batch = x.shape[0]
    if isinstance(batch, int):
        return cx.const(np.arange(batch).reshape(-1, 1), x.dtype)
    end = cx.squeeze(cx.size(batch, x), 0)
    numbers = cx.op(
        "Range", cx.const(0, np.int64), end, cx.const(1, np.int64), type=TensorType(np.dtype(np.int64), (batch,))
    )
    return cx.unsqueeze(cx.cast(numbers, x.dtype), 1)


def _converted(cx: Context, rows: Value, first: int, to_center: bool) -> Value:
    """Rows (B, K, W) with the four columns from ``first`` in the other format."""
    width = static(rows.shape[2], "the width of a box")
    end = first + 4
    boxes = cx.slice(rows, [first], [end], [2])
    new = _centers(cx, boxes) if to_center else _corners(cx, boxes, center=True)
    keep = cx.op("Less", _columns(cx, boxes, 0)[0], _number(cx, 0, rows))
    done = cx.op("Where", keep, boxes, cx.op("Concat", *new, axis=2))
    before = [cx.slice(rows, [0], [first], [2])] if first else []
    after = [cx.slice(rows, [end], [width], [2])] if end < width else []
    return cx.concat([*before, done, *after], 2)


@operator("_contrib_MultiBoxDetection", ignore=("background_id",))
def multibox_detection(cx: Context, a: Attributes, cls_prob: Value, loc_pred: Value, anchor: Value) -> Value:
    """Detections (B, N, 6) as class, score, corners, the best first; the class of a suppressed one is -1.

    As MXNet's CPU kernel has it: class 0 is the background whatever ``background_id`` says; rows beyond ``nms_topk``
    keep what they held before sorting, with class -1; no suppression where ``nms_threshold`` is not in (0, 1].
    """
    batch, count = cls_prob.shape[0], static(cls_prob.shape[2], "the number of anchors")
    if len(a.variances) != 4:
        raise Unsupported(f"variances={a.variances} are not four numbers")
    kind = cls_prob.dtype
    found = cx.slice(cls_prob, [1], [2**31], [1])
    score = cx.reduce("ReduceMax", found, [1])
    label = cx.cast(cx.op("ArgMax", found, axis=1, keepdims=0), kind)
    valid = cx.op("GreaterOrEqual", score, _number(cx, a.threshold, score))
    valid = cx.op("And", valid, cx.op("Greater", score, _number(cx, -1, score)))
    boxes = _decoded(cx, a, cx.reshape(loc_pred, (batch, count, 4)), anchor)
    parts = [cx.unsqueeze(label, 2), cx.unsqueeze(score, 2), boxes]
    rows = cx.op("Concat", *parts, axis=2, type=TensorType(kind, (batch, count, 6)))
    order, present = _survivors_first(cx, valid)
    none = _number(cx, -1, score)
    compact = cx.op("Where", cx.unsqueeze(present, 2), _rows(cx, rows, order), none, type=rows.type)
    if not 0 < a.nms_threshold <= 1:
        a.ignore("force_suppress", "nms_topk")
        return compact
    keys = cx.op("Where", present, cx.squeeze(_columns(cx, compact, 1)[0], 2), _number(cx, -math.inf, score))
    limit = min(a.nms_topk, count) if a.nms_topk > 0 else count
    _, best = _top(cx, keys, limit)
    rows = _rows(cx, compact, best)
    labels = _columns(cx, rows, 0)[0]
    candidates = cx.squeeze(cx.op("GreaterOrEqual", labels, _number(cx, 0, rows)), 2)
    hits = cx.op("And", _union_hits(cx, cx.slice(rows, [2], [6], [2]), a.nms_threshold), _later(cx, limit))
    if not a.force_suppress:
        hits = cx.op("And", hits, cx.op("Equal", labels, _flip(cx, labels)))
    alive = cx.unsqueeze(_greedy(cx, candidates, hits), 2)
    shown = [cx.op("Where", alive, labels, none), cx.slice(rows, [1], [6], [2])]
    result = cx.op("Concat", *shown, axis=2, type=rows.type)
    if limit == count:
        return result
    rest = cx.slice(compact, [limit], [count], [1])
    minus = _full_like(cx, _columns(cx, rest, 0)[0], -1)
    tail = cx.op("Concat", minus, cx.slice(rest, [1], [6], [2]), axis=2)
    return cx.op("Concat", result, tail, axis=1, type=TensorType(kind, (batch, count, 6)))


def _decoded(cx: Context, a: Attributes, loc: Value, anchor: Value) -> Value:
    """Corners (B, N, 4) of predictions relative to anchors (1, N, 4) given by corners."""
    ax, ay, aw, ah = _centers(cx, anchor)
    px, py, pw, ph = _columns(cx, loc, 0, 1, 2, 3)
    pairs = []
    for p, size, center, side, v, v_size in (
        (px, pw, ax, aw, a.variances[0], a.variances[2]),
        (py, ph, ay, ah, a.variances[1], a.variances[3]),
    ):
        middle = cx.op("Add", cx.op("Mul", cx.op("Mul", p, _number(cx, v, p)), side), center)
        half = _half(cx, cx.op("Mul", cx.op("Exp", cx.op("Mul", size, _number(cx, v_size, p))), side))
        pairs.append((cx.op("Sub", middle, half), cx.op("Add", middle, half)))
    (left, right), (top, bottom) = pairs
    boxes = cx.op("Concat", left, top, right, bottom, axis=2, type=loc.type)
    return cx.op("Clip", boxes, _number(cx, 0, boxes), _number(cx, 1, boxes)) if a.clip else boxes


def _union_hits(cx: Context, boxes: Value, threshold: float) -> Value:
    """Whether the intersection over union reaches the threshold (0 for an empty union), as MultiBoxDetection counts."""
    x1, y1, x2, y2 = _columns(cx, boxes, 0, 1, 2, 3)
    sides = []
    for low, high in ((x1, x2), (y1, y2)):
        start = cx.op("Max", low, _flip(cx, low))
        sides.append(_zero_floor(cx, cx.op("Sub", cx.op("Min", high, _flip(cx, high)), start)))
    inter = cx.op("Mul", *sides)
    area = cx.op("Mul", cx.op("Sub", x2, x1), cx.op("Sub", y2, y1))
    union = cx.op("Sub", cx.op("Add", area, _flip(cx, area)), inter)
    reached = cx.op("GreaterOrEqual", cx.op("Div", inter, union), _number(cx, threshold, boxes))
    return cx.op("And", reached, cx.op("Greater", union, _number(cx, 0, boxes)))


@operator("_contrib_MultiBoxPrior")
def multibox_prior(cx: Context, a: Attributes, data: Value) -> Value:
    """Anchors (1, H * W * A, 4) as corners, from the size of the data alone: a constant."""
    height, width = (static(size, "a spatial size (it makes the anchors)") for size in data.shape[2:])
    sizes, ratios = a.sizes, a.ratios
    if len(a.steps) != 2 or len(a.offsets) != 2:
        raise Unsupported(f"steps={a.steps}, offsets={a.offsets}: each needs two numbers")
    if a.steps[0] * a.steps[1] < 0 or not sizes or not ratios:
        raise Unsupported(f"MXNet defines no anchors for steps={a.steps}, sizes={sizes}, ratios={ratios}")
    single = np.float32  # MXNet's arithmetic, in its order: a corner is the small difference of larger numbers
    steps = [single(step) if step > 0 else single(1) / single(size) for step, size in zip(a.steps, (height, width))]
    y = (np.arange(height, dtype=single) + single(a.offsets[0])) * steps[0]
    x = (np.arange(width, dtype=single) + single(a.offsets[1])) * steps[1]
    shapes = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    pairs = [(single(size), np.sqrt(single(ratio))) for size, ratio in shapes]
    half = np.array([(s * single(height) / single(width) * root / 2, s / root / 2) for s, root in pairs], single)
    centers = np.stack([*np.meshgrid(x, y)], axis=-1)[:, :, None]
    anchors = np.concatenate([centers - half, centers + half], axis=-1).reshape(1, -1, 4)
    return cx.const((np.clip(anchors, 0, 1) if a.clip else anchors).astype(data.dtype))


# --- proposals -------------------------------------------------------------------------------------------------------


@operator("_contrib_Proposal", "_contrib_MultiProposal")
def proposal(cx: Context, a: Attributes, cls_prob: Value, bbox_pred: Value, im_info: Value) -> list[Value]:
    """Regions of a region proposal network: anchors moved, clipped, filtered, sorted, suppressed; (B * post, 5).

    Too few survivors are repeated from the start. Boxes that are too small count with score -1, after all others.
    """
    batch = cls_prob.shape[0]
    kinds = len(a.ratios) * len(a.scales)
    height, width = (static(size, "a spatial size (it makes the anchors)") for size in cls_prob.shape[2:])
    if cls_prob.shape[1] != 2 * kinds or bbox_pred.shape[1] != 4 * kinds:
        raise Unsupported(f"{kinds} anchors need {2 * kinds} scores and {4 * kinds} offsets at each place")
    count = kinds * height * width
    pre = min(a.rpn_pre_nms_top_n, count) if a.rpn_pre_nms_top_n > 0 else count
    post = a.rpn_post_nms_top_n
    if cls_prob.dtype != np.float32:
        raise Unsupported(f"its data are {cls_prob.dtype}; MXNet takes float32")
    order = [0, 2, 3, 1]
    scores = cx.transpose(cx.slice(cls_prob, [kinds], [2 * kinds], [1]), order)
    scores = cx.reshape(scores, (batch, count))
    deltas = cx.transpose(cx.reshape(bbox_pred, (batch, kinds, 4, height, width)), [0, 3, 4, 1, 2])
    deltas = cx.reshape(deltas, (batch, count, 4))
    boxes = _moved(cx, a, _shifted_anchors(a, height, width), deltas, im_info)
    boxes, scores = _filtered(cx, a, boxes, scores, im_info, (height, width, kinds))
    best, index = _top(cx, scores, pre)
    ranked = _rows(cx, boxes, index)
    numbers = cx.op("Not", cx.op("IsNaN", best))
    kept = _greedy(cx, numbers, cx.op("And", _pixel_hits(cx, ranked, a.threshold), _later(cx, pre)))
    order_kept, _ = _survivors_first(cx, kept)
    number = cx.reduce("ReduceSum", cx.cast(kept, np.int64), [1], keepdims=True)
    places = cx.op("Mod", cx.const(np.arange(post, dtype=np.int64)[None]), number)
    chosen = cx.op("GatherElements", order_kept, places, axis=1, type=TensorType(np.dtype(np.int64), (batch, post)))
    regions = _rows(cx, ranked, chosen)
    images = cx.expand(cx.unsqueeze(_batch_numbers(cx, regions), 2), (batch, post, 1))
    rois = cx.op("Concat", images, regions, axis=2)
    chosen_scores = cx.op("GatherElements", best, chosen, axis=1)
    a.ignore("output_score")
    return [cx.reshape(rois, (batch * post, 5)), cx.reshape(chosen_scores, (batch * post, 1))]


def _shifted_anchors(a: Attributes, height: int, width: int) -> Array:
    """Anchors (1, H * W * A, 4) in pixels, in single precision as the original has them."""
    one = np.float32(1)
    half = np.float32(0.5)
    side = np.float32(a.feature_stride)
    middle = half * (side - one)
    base = []
    for ratio in np.array(a.ratios, np.float32):
        for scale in np.array(a.scales, np.float32):
            root = np.floor(np.sqrt(np.floor(side * side / ratio)) + half)
            w, h = root * scale, np.floor(root * scale / scale * ratio + half) * scale
            reach = np.array([w - one, h - one]) * half
            base.append(np.concatenate([middle - reach, middle + reach]))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    shifts = np.stack([x, y, x, y], axis=-1)[:, :, None].astype(np.float32) * side
    anchors: Array = (np.array(base, np.float32) + shifts).reshape(1, -1, 4).astype(np.float32)
    return anchors


def _moved(cx: Context, a: Attributes, anchors: Array, deltas: Value, im_info: Value) -> Value:
    """The anchors moved by the predictions, and clipped to the image (im_info: height, width, scale)."""
    first, second = anchors[..., :2], anchors[..., 2:]
    d1, d2 = (cx.slice(deltas, [i], [i + 2], [2]) for i in (0, 2))
    if a.iou_loss:
        low, high = cx.op("Add", cx.const(first), d1), cx.op("Add", cx.const(second), d2)
    else:
        side = second - first + np.float32(1)
        middle = first + np.float32(0.5) * (side - np.float32(1))
        center = cx.op("Add", cx.op("Mul", d1, cx.const(side)), cx.const(middle))
        size = cx.op("Mul", cx.op("Exp", d2), cx.const(side))
        reach = _half(cx, cx.op("Sub", size, _number(cx, 1, size)))
        low, high = cx.op("Sub", center, reach), cx.op("Add", center, reach)
    limits = cx.op("Gather", im_info, cx.ints(1, 0), axis=1)
    limits = cx.unsqueeze(cx.op("Sub", limits, _number(cx, 1, limits)), 1)
    ends = [_zero_floor(cx, cx.op("Min", v, limits)) for v in (low, high)]
    return cx.op("Concat", *ends, axis=2, type=deltas.type)


def _filtered(
    cx: Context, a: Attributes, boxes: Value, scores: Value, im_info: Value, grid: tuple[int, int, int]
) -> tuple[Value, Value]:
    """Boxes that are too small grow by that much and score -1, as do those outside the image's own cells."""
    height, width, kinds = grid
    none = _number(cx, -1, scores)
    real = cx.op("Floor", cx.op("Div", cx.slice(im_info, [0], [2], [1]), _number(cx, a.feature_stride, scores)))
    y, x, _ = np.meshgrid(np.arange(height), np.arange(width), np.arange(kinds), indexing="ij")
    outside = cx.op(
        "Or",
        cx.op("GreaterOrEqual", cx.const(y.reshape(1, -1).astype(np.float32)), _columns(cx, real, 0)[0]),
        cx.op("GreaterOrEqual", cx.const(x.reshape(1, -1).astype(np.float32)), _columns(cx, real, 1)[0]),
    )
    scores = cx.op("Where", outside, none, scores, type=scores.type)
    least = cx.unsqueeze(cx.op("Mul", _columns(cx, im_info, 2)[0], _number(cx, a.rpn_min_size, scores)), 2)
    low, high = (cx.slice(boxes, [i], [i + 2], [2]) for i in (0, 2))
    sides = cx.op("Add", cx.op("Sub", high, low), _number(cx, 1, scores))
    small = cx.op("Less", cx.reduce("ReduceMin", sides, [2], keepdims=True), least)
    grow = _half(cx, least)
    wide = cx.op("Concat", cx.op("Sub", low, grow), cx.op("Add", high, grow), axis=2)
    boxes = cx.op("Where", small, wide, boxes, type=boxes.type)
    return boxes, cx.op("Where", cx.squeeze(small, 2), none, scores, type=scores.type)


def _pixel_hits(cx: Context, boxes: Value, threshold: float) -> Value:
    """Whether the intersection over union of boxes of whole pixels (a side is last - first + 1) is above it."""
    x1, y1, x2, y2 = _columns(cx, boxes, 0, 1, 2, 3)
    one = _number(cx, 1, boxes)
    sides = []
    for low, high in ((x1, x2), (y1, y2)):
        start, end = cx.op("Max", low, _flip(cx, low)), cx.op("Min", high, _flip(cx, high))
        sides.append(_zero_floor(cx, cx.op("Add", cx.op("Sub", end, start), one)))
    inter = cx.op("Mul", *sides)
    spans = [cx.op("Add", cx.op("Sub", high, low), one) for low, high in ((x1, x2), (y1, y2))]
    area = cx.op("Mul", *spans)
    union = cx.op("Sub", cx.op("Add", area, _flip(cx, area)), inter)
    return cx.op("Greater", cx.op("Div", inter, union), _number(cx, threshold, boxes))


# --- pooling of regions ----------------------------------------------------------------------------------------------


def _axis_of_region(cx: Context, boxes: Value, low: int, scale: float, offset: float) -> tuple[Value, Value]:
    """First and last coordinate (R, 1) of regions (R, 4) along one axis, in cells."""
    ends = []
    for column in (low, low + 2):
        end = cx.op("Mul", _columns(cx, boxes, column)[0], _number(cx, scale, boxes))
        ends.append(cx.op("Sub", end, _number(cx, offset, boxes)) if offset else end)
    return ends[0], ends[1]


def _sampling_matrix(cx: Context, ends: tuple[Value, Value], bins: int, size: int, samples: int, least: float) -> Value:
    """(R, bins, size): how much each cell of an axis counts in each bin: the mean of its bilinear samples.

    With ``samples`` <= 0 a bin takes one sample per cell it spans, rounded up: a Loop with that many steps at most.
    """
    start, end = ends
    span = cx.op("Max", cx.op("Sub", end, start), _number(cx, least, start)) if least else cx.op("Sub", end, start)
    width = cx.op("Div", span, _number(cx, bins, span))
    starts = cx.op("Add", cx.op("Mul", width, cx.const(np.arange(bins)[None], span.dtype)), start)
    kind = TensorType(span.dtype, (start.shape[0], bins, size))

    def tents(position: Value) -> Value:
        """(R, bins, 1) to the weights of the cells; beyond one cell outside nothing counts."""
        inside = cx.op("And",
            cx.op("GreaterOrEqual", position, _number(cx, -1, span)), cx.op("LessOrEqual", position, _number(cx, size, span)))  # fmt: skip
        clamped = cx.op("Clip", position, _number(cx, 0, span), _number(cx, size - 1, span))
        far = cx.op("Abs", cx.op("Sub", clamped, cx.const(np.arange(size)[None, None], span.dtype)))
        weight = _zero_floor(cx, cx.op("Sub", _number(cx, 1, span), far))
        return cx.op("Where", inside, weight, _number(cx, 0, span), type=kind)

    if samples > 0:
        total: Value | None = None
        for i in range(samples):
            step = cx.op("Mul", width, _number(cx, (i + 0.5) / samples, span))
            part = tents(cx.unsqueeze(cx.op("Add", starts, step), 2))
            total = part if total is None else cx.op("Add", total, part, type=kind)
        assert total is not None
        return cx.op("Div", total, _number(cx, samples, span)) if samples > 1 else total
    counts = cx.op("Ceil", width)
    flag, index = TensorType(np.dtype(bool), ()), TensorType(np.dtype(np.int64), ())

    def body(number: Value, going: Value, total: Value) -> list[Value]:
        i = cx.cast(number, span.dtype)
        step = cx.op("Div", cx.op("Mul", cx.op("Add", i, _number(cx, 0.5, span)), width), counts)
        part = tents(cx.unsqueeze(cx.op("Add", starts, step), 2))
        used = cx.unsqueeze(cx.op("Less", i, counts), 2)
        part = cx.op("Where", used, part, _number(cx, 0, span), type=kind)
        return [going, cx.op("Add", total, part, type=kind)]

    graph, _ = cx.subgraph("samples", [index, flag, kind], body)
    steps = cx.cast(cx.reduce("ReduceMax", counts, [0, 1]), np.int64)
    begin = (
        _full_like(cx, Value("", kind), 0)
        if kind.is_static
        else cx.op("Mul", tents(cx.unsqueeze(starts, 2)), _number(cx, 0, span))
    )
    total = cx.op("Loop", steps, cx.const(True), begin, type=kind, body=graph)
    return cx.op("Div", total, cx.unsqueeze(counts, 2), type=kind)


def _pooled(cx: Context, data: Value, rois: Value, rows: Value, cols: Value) -> Value:
    """Weighted sums over rows (R, P, H) and columns (R, Q, W) of each region's own image: (R, C, P, Q)."""
    batch, channels, height, width = data.shape
    regions, bins_y, bins_x = rois.shape[0], rows.shape[1], cols.shape[1]
    # Rows of all images under each other; those of other images count nothing, and of a negative one all: regions of
    # other levels of a feature pyramid are masked so.
    numbers = cx.cast(cx.cast(_columns(cx, rois, 0)[0], np.int32), data.dtype)
    own = cx.op("Equal", numbers, cx.transpose(_batch_numbers(cx, data), [1, 0]))
    own = cx.unsqueeze(cx.cast(own, data.dtype), 1, 3)
    rows = cx.op("Mul", cx.unsqueeze(rows, 2), own, type=TensorType(data.dtype, (regions, bins_y, batch, height)))
    stacked = cx.reshape(rows, (regions * bins_y, batch * height))
    planes = cx.reshape(cx.transpose(data, [1, 0, 2, 3]), (channels, batch * height, width))
    lines = cx.op("MatMul", stacked, planes, type=TensorType(data.dtype, (channels, regions * bins_y, width)))
    lines = cx.transpose(cx.reshape(lines, (channels, regions, bins_y, width)), [1, 0, 2, 3])
    lines = cx.reshape(lines, (regions, channels * bins_y, width))
    out = cx.op("MatMul", lines, _flip(cx, cols), type=TensorType(data.dtype, (regions, channels * bins_y, bins_x)))
    return cx.reshape(out, (regions, channels, bins_y, bins_x))


@operator("_contrib_ROIAlign")
def roi_align(cx: Context, a: Attributes, data: Value, rois: Value) -> Value:
    """Mean of bilinear samples over the bins of each region (image, x1, y1, x2, y2).

    Samples lie on a grid, so the weights of rows and columns are separate, and the sums are two matrix products.
    """
    height, width = (static(size, "a spatial size (of ROIAlign's data)") for size in data.shape[2:])
    bins_y, bins_x = a.pooled_size
    boxes = cx.slice(rois, [1], [5], [1])
    offset, least = (0.5, 0.0) if a.aligned else (0.0, 1.0)
    rows, cols = (
        _sampling_matrix(cx, _axis_of_region(cx, boxes, i, a.spatial_scale, offset), bins, size, a.sample_ratio, least)
        for i, bins, size in ((1, bins_y, height), (0, bins_x, width))
    )
    y = _pooled(cx, data, rois, rows, cols)
    if not a.position_sensitive:
        return y
    channels = static(data.shape[1], "the number of channels")
    if channels % (bins_y * bins_x):
        raise Unsupported(f"position_sensitive: {channels} channels do not divide into {bins_y * bins_x} bins")
    own = np.arange(bins_y * bins_x).reshape(bins_y, bins_x)
    return _by_position(cx, y, own, own.size)


def _by_position(cx: Context, y: Value, own: Array, groups: int) -> Value:
    """Of (R, C * G, P, Q), at each bin (p, q) the channels c * G + own[p, q]: (R, C, P, Q); G is ``groups``."""
    regions, channels, rows, cols = y.shape
    bins = own.size
    each = static(channels, "the number of channels") // groups
    flat = cx.reshape(y, (regions, each, groups * bins))
    picked = cx.op("Gather", flat, cx.const(own.reshape(-1) * bins + np.arange(bins)), axis=2)
    return cx.reshape(picked, (regions, each, rows, cols))


def _rounded(cx: Context, x: Value) -> Value:
    """C's round(): half away from zero."""
    up = cx.op("Floor", cx.op("Add", cx.op("Abs", x), _number(cx, 0.5, x)))
    return cx.op("Mul", cx.op("Sign", x), up)


def _covered(cx: Context, starts: Value, ends: Value, size: int) -> Value:
    """(R, bins, size) bool: the cells from starts to ends (R, bins), the end excluded."""
    cells = cx.const(np.arange(size)[None, None], starts.dtype)
    first = cx.op("GreaterOrEqual", cells, cx.unsqueeze(starts, 2))
    return cx.op("And", first, cx.op("Less", cells, cx.unsqueeze(ends, 2)))


def _bin_edges(cx: Context, start: Value, width: Value, bins: int, integer: bool) -> tuple[Value, Value]:
    """Rounded-out first and last edges (R, bins) of bins; with ``integer`` the start is added after rounding."""
    edges = []
    for op_type, first in (("Floor", 0), ("Ceil", 1)):
        place = cx.op("Mul", cx.const(np.arange(first, bins + first)[None], width.dtype), width)
        if integer:
            edges.append(cx.op("Add", cx.op(op_type, place), start))
        else:
            edges.append(cx.op(op_type, cx.op("Add", place, start)))
    return edges[0], edges[1]


@operator("ROIPooling")
def roi_pooling(cx: Context, a: Attributes, data: Value, rois: Value) -> Value:
    """Maximum over the bins of each region (image, x1, y1, x2, y2), corners rounded half away from zero; 0 if empty."""
    sizes = [static(size, "a spatial size (of ROIPooling's data)") for size in data.shape[2:]]
    one = _number(cx, 1, rois)
    masks = []
    for axis in range(2):
        places = _columns(cx, rois, 2 - axis, 4 - axis)
        start, end = (_rounded(cx, cx.op("Mul", v, _number(cx, a.spatial_scale, rois))) for v in places)
        length = cx.op("Max", cx.op("Add", cx.op("Sub", end, start), one), one)
        bins = a.pooled_size[axis]
        first, last = _bin_edges(cx, start, cx.op("Div", length, _number(cx, bins, rois)), bins, integer=True)
        masks.append(_covered(cx, first, last, sizes[axis]))
    rows, cols = masks
    numbers = cx.cast(cx.squeeze(_columns(cx, rois, 0)[0], 1), np.int64)
    channels, (bins_y, bins_x) = data.shape[1], a.pooled_size
    lowest = _number(cx, -math.inf, data)
    inner = [TensorType(np.dtype(np.int64), ()), *(TensorType(np.dtype(bool), mask.shape[1:]) for mask in masks)]
    kind = TensorType(data.dtype, (channels, bins_y, bins_x))

    def body(number: Value, own_rows: Value, own_cols: Value) -> list[Value]:
        image = cx.op("Gather", data, number, axis=0)
        spread = cx.op("Where", own_cols, cx.unsqueeze(image, 2), lowest)
        lines = cx.reduce("ReduceMax", spread, [3])
        spread = cx.op("Where", cx.unsqueeze(own_rows, 2), cx.unsqueeze(lines, 1), lowest)
        best = cx.reduce("ReduceMax", spread, [2])
        empty = cx.op("Equal", best, lowest)
        return [cx.op("Where", empty, _number(cx, 0, data), best, type=kind)]

    graph, _ = cx.subgraph("region", inner, body)
    out = TensorType(data.dtype, (rois.shape[0], *kind.shape))
    return cx.op("Scan", numbers, rows, cols, type=out, body=graph, num_scan_inputs=3)


@operator("_contrib_PSROIPooling")
def psroi_pooling(cx: Context, a: Attributes, data: Value, rois: Value) -> Value:
    """Mean over the bins of each region, each bin from channels of its own; an empty bin gives 0."""
    bins, group = a.pooled_size, a.group_size or a.pooled_size
    sizes = [static(size, "a spatial size (of PSROIPooling's data)") for size in data.shape[2:]]
    if data.shape[1] != a.output_dim * group * group:
        raise Unsupported(
            f"{data.shape[1]} channels are not output_dim * group_size^2 = {a.output_dim * group * group}"
        )
    weights = []
    for axis in range(2):
        low, high = _columns(cx, rois, 2 - axis, 4 - axis)
        start = cx.op("Mul", _rounded(cx, low), _number(cx, a.spatial_scale, rois))
        last = cx.op("Add", _rounded(cx, high), _number(cx, 1, rois))
        end = cx.op("Mul", last, _number(cx, a.spatial_scale, rois))
        length = cx.op("Max", cx.op("Sub", end, start), _number(cx, 0.1, rois))
        edges = _bin_edges(cx, start, cx.op("Div", length, _number(cx, bins, rois)), bins, integer=False)
        cells = cx.cast(_covered(cx, *edges, sizes[axis]), data.dtype)
        count = cx.op("Max", cx.reduce("ReduceSum", cells, [2], keepdims=True), _number(cx, 1, data))
        weights.append(cx.op("Div", cells, count))
    place = np.arange(bins) * group // bins
    return _by_position(cx, _pooled(cx, data, rois, *weights), place[:, None] * group + place, group * group)


refuse(
    "moves each bin by data of its own and has no counterpart in ONNX",
    "_contrib_DeformablePSROIPooling",
    "_contrib_RROIAlign",
)
refuse("computes targets for training, which has no place in inference", "_contrib_MultiBoxTarget")
