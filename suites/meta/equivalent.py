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
        kinds: the kinds of fault; () is all.
        equivalent: whether the answers stay the same; else it is a fault that the suite is blind to.
    """

    where: str
    change: str
    why: str
    kinds: tuple[str, ...] = ()
    equivalent: bool = True

    def fits(self, fault: Fault) -> bool:
        """Whether a fault is meant."""
        where = f"{fault.module.rpartition('.')[2]}.{fault.function}"
        return (
            where == self.where
            and (not self.kinds or fault.kind in self.kinds)
            and re.fullmatch(self.change, fault.change, re.DOTALL) is not None
        )


EXPLAINED: list[Explained] = []


def explanation(fault: Fault) -> Explained | None:
    """The entry that a fault fits, if there is one."""
    return next((item for item in EXPLAINED if item.fits(fault)), None)
