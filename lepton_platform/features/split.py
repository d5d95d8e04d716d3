"""Which split a group belongs to: its name alone decides, so that no row added later ever moves another."""

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PRODUCTION = "production"  # labelled rows of the service that nothing is trained on: challengers are judged by them
_DIGITS = 13  # 52 bits: exact in a float


def place(name: str, salt: str) -> float:
    """Where ``name`` falls in [0, 1): SHA-256 of salt and name, so even for names that are alike."""
    digest = hashlib.sha256(f"{salt}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest[:_DIGITS], 16) / 16**_DIGITS


def split_of(group: str, *, test_share: float, validation_share: float, salt: str) -> Split:
    """``test`` for ``test_share`` of all names; of the others, ``validation`` for ``validation_share``.

    The two draws are independent: another validation share leaves the test split as it is.
    """
    if place(group, f"{salt}/test") < test_share:
        return "test"
    return "validation" if place(group, f"{salt}/validation") < validation_share else "train"
