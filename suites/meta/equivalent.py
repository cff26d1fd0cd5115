"""Planted faults that change no answer, and why: places where two ways of writing give the same.

Each entry is an argument about all legal cases. ``suites.meta.mutate`` holds it to the cases: a fault that is listed
here and caught all the same is an error of this list, and so is an entry that no fault fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .planting import Fault


@dataclass(frozen=True)
class Equivalent:
    """Faults that change no answer.

    Attributes:
        where: the file and the function, as "softmax._wider".
        change: a regular expression that the whole change fits.
        reason: why the answer stays the same.
        kinds: the kinds of fault; () is all.
    """

    where: str
    change: str
    reason: str
    kinds: tuple[str, ...] = ()

    def fits(self, fault: Fault) -> bool:
        """Whether a fault is meant."""
        where = f"{fault.module.rpartition('.')[2]}.{fault.function}"
        return (
            where == self.where
            and (not self.kinds or fault.kind in self.kinds)
            and re.fullmatch(self.change, fault.change, re.DOTALL) is not None
        )


EQUIVALENT: list[Equivalent] = []


def why_equivalent(fault: Fault) -> str | None:
    """The reason why a fault changes nothing; None if it is not known to."""
    return next((item.reason for item in EQUIVALENT if item.fits(fault)), None)
