"""Special functions and the densities that need them: how their inputs are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor
from .elementwise import EDGES, EDGY, FLOATS, unary

POLES = (-1.0, -2.0, -8.0, -1e9)
MINIMA = (1.4616321, -2.609, -0.50408, -1.5735, 0.25, 1.25, 2.25, 8.0)


def sampled(samples: tuple[float, float] = (0.05, 9), many: bool = False, **parameters: tuple[float, float]) -> Build:
    """Samples in rows, one parameter each; ``many`` of them show what the difference of large logarithms loses."""

    def build(d: Draw, a: Attributes) -> Inputs:
        shape = (d.integer(2, 3), 50) if many else d.shape((2, 3))
        found = {name: Tensor(shape[:1], "float32", *between, dynamic=(0,)) for name, between in parameters.items()}
        return {"sample": Tensor(shape, "float32", *samples, dynamic=(0, 1)), **found}

    return build


def shares(d: Draw, a: Attributes) -> Inputs:
    rows, samples, parts = d.sizes(3, 1, 4)
    middle = (samples,) if d.boolean() else ()
    return {
        "sample": Tensor((rows, *middle, parts), low=0.05, high=0.9),
        "alpha": Tensor((rows, parts), low=0.1, high=4),
    }


IS_LOG = {"is_log": [DEFAULT, False, True]}
POSITIVE = (0.3, 4.0)
LARGE = (50.0, 200.0)
ABOUT_TWO = tuple(np.linspace(0.05, 3, 60).tolist())  # where the series about 2 is used, and how far it is from there
SPECS = [
    Spec(
        "gamma",
        EDGY,
        unary("data", FLOATS, -6, 9, values=(*EDGES, *POLES, *MINIMA, *ABOUT_TWO, 34.9, -33.5, 1e-30)),
        examples=20,
    ),
    Spec(
        "gammaln",
        EDGY,
        unary("data", FLOATS, -6, 20, values=(*EDGES, *POLES, *MINIMA, *ABOUT_TWO, 1e30, -1e-30, 3e36)),
        examples=20,
    ),
    Spec(
        "erfinv",
        {},
        unary("data", FLOATS, -0.999, 0.999, values=(*EDGES, -1.0, 1e-30, 0.9999999, -0.9999)),
        examples=20,
    ),
    Spec("_random_pdf_gamma", IS_LOG, sampled(alpha=POSITIVE, beta=POSITIVE)),
    Spec("_random_pdf_poisson", IS_LOG, sampled(lam=POSITIVE)),
    Spec("_random_pdf_negative_binomial", IS_LOG, sampled(k=POSITIVE, p=(0.1, 0.9))),
    Spec("_random_pdf_generalized_negative_binomial", IS_LOG, sampled(mu=POSITIVE, alpha=POSITIVE)),
    *(
        Spec(
            f"_random_pdf_{name}",
            {"is_log": [False, True]},
            sampled(between, True, **parameters),
            examples=2,
        )
        for name, between, parameters in (
            ("gamma", (1.0, 4.0), {"alpha": (100.0, 300.0), "beta": (70.0, 100.0)}),
            ("poisson", LARGE, {"lam": LARGE}),
            ("negative_binomial", LARGE, {"k": LARGE, "p": (0.3, 0.7)}),
            ("generalized_negative_binomial", LARGE, {"mu": LARGE, "alpha": (0.01, 0.02)}),
        )
    ),
    Spec("_random_pdf_dirichlet", IS_LOG, shares, terms=lambda a, i: i["alpha"].shape[-1]),
]
