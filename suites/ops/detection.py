"""Anchors, box arithmetic, suppression and pooling of regions: how they are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


def _rng(d: Draw) -> np.random.Generator:
    return np.random.default_rng(d.integer(0, 2**16))


def corner_boxes(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Boxes that overlap often; corners in order."""
    center, size = rng.uniform(0.3, 0.7, (*shape, 2)), rng.uniform(0.1, 0.6, (*shape, 2))
    return np.concatenate([center - size / 2, center + size / 2], -1) * scale


def as_format(boxes: np.ndarray, center: bool) -> np.ndarray:
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], -1) if center else boxes


def given(array: np.ndarray, dtype: str = "float32", **options) -> Tensor:
    return Tensor(array.shape, dtype, values=array, **options)


def box_iou(d: Draw, a: Attributes) -> Inputs:
    rng, dtype = _rng(d), d.pick(["float32", "float32", "float64"])
    center = a.get("format") == "center"
    shapes = [d.shape((1, 3), high=3) for _ in range(2)]
    return {
        name: given(as_format(corner_boxes(rng, shape), center), dtype, dynamic=(0,))
        for name, shape in zip(("lhs", "rhs"), shapes)
    }


def box_decode(d: Draw, a: Attributes) -> Inputs:
    batch, count = d.integer(1, 3), d.integer(1, 5)
    anchors = as_format(corner_boxes(_rng(d), (1, count)), a.get("format") != "corner")
    return {"data": Tensor((batch, count, 4), dynamic=(0,)), "anchors": given(anchors, const=d.boolean())}


def box_encode(d: Draw, a: Attributes) -> Inputs:
    rng = _rng(d)
    batch, count, refs = d.integer(1, 3), d.integer(1, 5), d.integer(1, 4)
    return {
        "samples": Tensor((batch, count), values=[-1, 0, 1, 0.3, 0.7]),
        "matches": given(rng.integers(0, refs, (batch, count))),
        "anchors": given(corner_boxes(rng, (batch, count))),
        "refs": given(corner_boxes(rng, (batch, refs))),
        "means": Tensor((4,), const=True),
        "stds": Tensor((4,), low=0.1, high=1, const=True),
    }


def bipartite(d: Draw, a: Attributes) -> Inputs:
    shape = d.pick([(), (2,), (2, 3)]) + d.shape(2)
    return {
        "data": Tensor(
            shape, d.pick(["float32", "float64"]), low=0, high=1, distinct=True, dynamic=(0,) if len(shape) > 2 else ()
        )
    }


def box_nms(d: Draw, a: Attributes) -> Inputs:
    rng = _rng(d)
    batch, count = d.pick([(), (1,), (2,), (2, 2)]), d.integer(1, 8)
    first, score, label = a.get("coord_start", 2), a.get("score_index", 1), a.get("id_index", -1)
    data = rng.uniform(-1, 1, (*batch, count, 7))
    scale = d.pick([1, 10, -1])
    data[..., first : first + 4] = as_format(corner_boxes(rng, (*batch, count), scale), a.get("in_format") == "center")
    total = int(np.prod((*batch, count)))
    data[..., score] = (rng.permutation(total) / total).reshape(*batch, count)
    if d.integer(0, 5) == 0:
        data[..., score] = -1  # nothing is left
    if label >= 0:
        data[..., label] = rng.integers(-1, 3, (*batch, count))
    dynamic = (0,) if len(batch) == 1 and a.get("topk") != 0 else ()
    return {"data": given(data, d.pick(["float32", "float32", "float64"]), dynamic=dynamic)}


def separate_columns(a: Attributes) -> bool:
    first, score, label = a.get("coord_start", 2), a.get("score_index", 1), a.get("id_index", -1)
    return score not in range(first, first + 4) and label not in range(first, first + 4) and label != score


def multibox_detection(d: Draw, a: Attributes) -> Inputs:
    rng = _rng(d)
    batch, classes, count = d.integer(1, 2), d.integer(2, 4), 16 if a.pop("crowd", False) else d.integer(1, 7)
    scores = (rng.permutation(batch * classes * count) / (batch * classes * count)).reshape(batch, classes, count)
    return {
        "cls_prob": given(scores, dynamic=(0,)),
        "loc_pred": Tensor((batch, count * 4), low=-1, high=1, dynamic=(0,)),
        "anchor": given(corner_boxes(rng, (1, count)), const=d.boolean()),
    }


def half_covered(d: Draw, a: Attributes) -> Inputs:
    """Two boxes whose intersection is half of their union, to the last bit."""
    return {
        "cls_prob": given(np.array([[[0.25, 0.5], [0.75, 0.5]]])),
        "loc_pred": given(np.zeros((1, 8))),
        "anchor": given(np.array([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.25]]])),
    }


def multibox_prior(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor((d.integer(1, 3), 2, d.integer(1, 4), d.integer(1, 4)), dynamic=(0,))}


def proposal(d: Draw, a: Attributes) -> Inputs:
    kinds = len(a.get("scales", range(4))) * len(a.get("ratios", range(3)))
    batch = d.integer(1, 2) if a.pop("several", False) else 1
    anchors = a.pop("anchors", False)  # they alone
    height, width = d.sizes(2, 1, 3)
    stride = a.get("feature_stride", 16)
    scores = np.random.default_rng(d.integer(0, 999)).permutation(batch * 2 * kinds * height * width)
    real = [max(size - d.pick([0, 1]), 1) for size in (height, width)]  # cells behind the image's own do not count
    info = np.array([[real[0] * stride + 3, real[1] * stride + 5, d.pick([0.5, 1])]] * batch)
    return {
        "cls_prob": given((scores / scores.size).reshape(batch, 2 * kinds, height, width)),
        "bbox_pred": Tensor((batch, 4 * kinds, height, width), low=-0.3, high=0.3, values=(0,) if anchors else None),
        "im_info": given(info),
    }


def multi_proposal(d: Draw, a: Attributes) -> Inputs:
    a["several"] = True
    return proposal(d, a)


def regions(d: Draw, batch: int, high: float, backwards: bool = True) -> np.ndarray:
    """Regions: some are tiny, partly outside, or have their corners in the wrong order; the image's number is cut."""
    rng, count = _rng(d), d.integer(1, 4)
    boxes = corner_boxes(rng, (count,), high) + rng.uniform(-0.5, 0.5, (count, 1))
    boxes += high * rng.choice([0, 0, 0.5, -0.5], (count, 1))
    boxes[:, 2:] = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) * rng.choice([1, 1, 1, 0.03], (count, 1))
    if backwards:
        boxes = np.where(rng.integers(0, 3, (count, 1)) == 0, boxes[:, [2, 3, 0, 1]], boxes)
    return np.concatenate([rng.integers(0, batch, (count, 1)) + rng.choice([0, 0.4], (count, 1)), boxes], 1)


def roi_align(d: Draw, a: Attributes) -> Inputs:
    batch = d.integer(1, 3)
    height, width = d.sizes(2, 1, 6)
    bins = int(np.prod(a["pooled_size"])) if a.get("position_sensitive") else 1
    rois = regions(d, batch, max(height, width) / a["spatial_scale"], not a.get("aligned"))
    dtype = d.pick(["float32", "float32", "float64"])
    return {
        "data": Tensor((batch, bins * d.integer(1, 2), height, width), dtype, dynamic=(0,)),
        "rois": given(rois, dtype, dynamic=(0,)),
    }


def roi_pooling(d: Draw, a: Attributes) -> Inputs:
    batch = d.integer(1, 3)
    height, width = d.sizes(2, 1, 6)
    rois = regions(d, batch, max(height, width) / a["spatial_scale"])
    half = rois[:, 1:] * a["spatial_scale"] % 1
    rois[:, 1:] += np.where(np.abs(half - 0.5) < 0.02, 0.05, 0)
    return {"data": Tensor((batch, d.integer(1, 2), height, width)), "rois": given(rois, dynamic=(0,))}


def whole_regions(d: Draw, a: Attributes) -> Inputs:
    """Regions of 7 rows, 13 of whose thirteenth parts are more than 7 in float32: the last bin has one row too many."""
    start = d.integer(1, 5)
    rois = np.array([[0, start, start + 1, start + 6, start + 7]], float)
    return {"data": Tensor((1, 2, 15, 15), distinct=True), "rois": given(rois)}


def psroi_pooling(d: Draw, a: Attributes) -> Inputs:
    batch, group = d.integer(1, 2), a.get("group_size", 0) or a["pooled_size"]
    height, width = d.sizes(2, 2, 6)
    rois = regions(d, batch, max(height, width) / a["spatial_scale"])
    rois[:, 1:] = np.round(rois[:, 1:]) + 0.2
    return {"data": Tensor((batch, a["output_dim"] * group * group, height, width)), "rois": given(rois, dynamic=(0,))}


_PROPOSAL = {
    "rpn_pre_nms_top_n": [DEFAULT, 5, 0],
    "rpn_post_nms_top_n": [DEFAULT, 3, 8, 20],
    "threshold": [DEFAULT, 0.2],
    "rpn_min_size": [0, 9],
    "scales": [(1,), (0.5, 2), DEFAULT],
    "ratios": [DEFAULT, (1,), (0.5, 2)],
    "feature_stride": [DEFAULT, 8],
    "output_score": [DEFAULT, True],
    "iou_loss": [DEFAULT, True],
}


SPECS = [
    Spec("_contrib_box_iou", {"format": [DEFAULT, "corner", "center"]}, box_iou),
    Spec(
        "_contrib_box_decode",
        {
            "std0": [DEFAULT, 0.1],
            "std1": [DEFAULT, 0.3],
            "std2": [DEFAULT, 0.2],
            "std3": [DEFAULT, 0.5],
            "clip": [DEFAULT, 0.2, 1.5],
            "format": [DEFAULT, "center", "corner"],
        },
        box_decode,
    ),
    Spec("_contrib_box_encode", {}, box_encode, outputs=2, reference_dtype="float32"),
    Spec(
        "_contrib_bipartite_matching",
        {"is_ascend": [DEFAULT, True, False], "threshold": [1e-12, 0.4, 0.8], "topk": [DEFAULT, 0, 1, 2, 10]},
        bipartite,
        outputs=2,
    ),
    Spec(
        "_contrib_box_nms",
        {
            "overlap_thresh": [DEFAULT, 0.2, 0.9],
            "valid_thresh": [DEFAULT, 0.4],
            "topk": [DEFAULT, 0, 2, 100],
            "coord_start": [DEFAULT, 0, 3],
            "score_index": [DEFAULT, 0, 4, 6],
            "id_index": [DEFAULT, 0, 1, 5],
            "background_id": [DEFAULT, 0],
            "force_suppress": [DEFAULT, True],
            "in_format": [DEFAULT, "corner", "center"],
            "out_format": [DEFAULT, "corner", "center"],
        },
        box_nms,
        legal=separate_columns,
        outputs=2,
        examples=12,
        varying=6,
    ),
    Spec(
        "_contrib_MultiBoxDetection",
        {
            "clip": [DEFAULT, False],
            "threshold": [DEFAULT, 0.5],
            "background_id": [DEFAULT, 1],
            "nms_threshold": [DEFAULT, 0.1, 0, 2],
            "force_suppress": [DEFAULT, True],
            "variances": [DEFAULT, (0.3, 0.2, 0.1, 0.4)],
            "nms_topk": [DEFAULT, 1, 3, 50],
        },
        multibox_detection,
        reference_dtype="float32",
    ),
    Spec(
        "_contrib_MultiBoxDetection",
        {"crowd": [True], "nms_threshold": [0.2, 0.5], "force_suppress": [True]},
        multibox_detection,
        reference_dtype="float32",
    ),
    Spec("_contrib_MultiBoxDetection", {"nms_threshold": [0.5]}, half_covered, reference_dtype="float32", examples=1),
    Spec(
        "_contrib_MultiBoxPrior",
        {
            "sizes": [DEFAULT, (0.5, 0.3), (0.2,)],
            "ratios": [DEFAULT, (2, 0.5), (1, 2, 0.5)],
            "clip": [DEFAULT, True],
            "steps": [DEFAULT, (0.1, 0.2)],
            "offsets": [DEFAULT, (0.2, 0.7)],
        },
        multibox_prior,
        reference_dtype="float32",
    ),
    Spec(
        "_contrib_Proposal",
        _PROPOSAL,
        proposal,
        outputs=lambda a: 2 if a.get("output_score") else 1,
        reference_dtype="float32",
    ),
    Spec(
        "_contrib_MultiProposal",
        _PROPOSAL,
        multi_proposal,
        outputs=lambda a: 2 if a.get("output_score") else 1,
        reference_dtype="float32",
    ),
    *(  # a ratio by which the area of an anchor is rounded down just below the square of a half
        Spec(
            name,
            {"rpn_post_nms_top_n": [8], "scales": [(1,)], "ratios": [(1.065,)], "rpn_min_size": [0], "anchors": [True]},
            build,
            reference_dtype="float32",
            examples=3,
        )
        for name, build in (("_contrib_Proposal", proposal), ("_contrib_MultiProposal", multi_proposal))
    ),
    Spec(
        "_contrib_ROIAlign",
        {
            "pooled_size": [(1, 1), (2, 3)],
            "spatial_scale": [1.0, 0.25],
            "sample_ratio": [DEFAULT, 0, 1, 2],
            "position_sensitive": [DEFAULT, True],
            "aligned": [DEFAULT, True],
        },
        roi_align,
        terms=lambda a, i: 16,
    ),
    Spec("ROIPooling", {"pooled_size": [(1, 1), (2, 3)], "spatial_scale": [1.0, 0.25]}, roi_pooling),
    Spec(
        "ROIPooling",
        {"pooled_size": [(13, 13)], "spatial_scale": [1.0]},
        whole_regions,
        examples=2,
        reference_dtype="float32",
    ),
    Spec(
        "_contrib_PSROIPooling",
        {"spatial_scale": [1.0, 0.37], "output_dim": [1, 2], "pooled_size": [2, 3], "group_size": [DEFAULT, 2, 3]},
        psroi_pooling,
        terms=lambda a, i: 36,
    ),
]
