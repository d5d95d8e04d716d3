"""Near duplicates: candidates by MinHash and banding, every one verified by its true Jaccard similarity."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lepton_platform.stage import Progress

_SEED = 1


@dataclass(frozen=True)
class Likeness:
    """Item ``place`` is like the earlier item ``of``."""

    place: int
    of: int
    similarity: float


def near_duplicates(
    shingles: Sequence[set[str]], threshold: float, permutations: int = 128, progress: Progress | None = None
) -> Iterator[Likeness]:
    """Every item that is at least ``threshold`` alike to an earlier one that stays; the most alike is named.

    Items come in the order of their rank: the first of a cluster stays. An item is compared with those that stay, so
    what remains is pairwise unlike (Broder 1997 for MinHash; banding after Leskovec et al., ch. 3). Two items of
    similarity s meet in a band with probability 1 - (1 - s^r)^b; r is the largest with 0.9999 or more at the threshold.
    """
    from datasketch import MinHash, MinHashLSH

    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")
    index = MinHashLSH(threshold=threshold, num_perm=permutations, params=_bands(threshold, permutations))
    blank = MinHash(permutations, seed=_SEED, hashfunc=_hash)
    for place, own in enumerate(shingles):
        if progress and place % 1000 == 0:
            progress(place, len(shingles))
        sketch = blank.copy()
        sketch.update_batch(sorted(own))
        alike = [(_jaccard(own, shingles[of]), -of) for of in index.query(sketch)]
        best, of = max(alike, default=(0.0, 0))
        if best >= threshold:
            yield Likeness(place, -of, best)
        else:
            index.insert(place, sketch, check_duplication=False)


def _hash(shingle: str) -> int:
    return zlib.crc32(shingle.encode("utf-8", "surrogatepass"))


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def _bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows of a band) for a miss of at most one in ten thousand at the threshold."""
    rows = 1
    while (1 - threshold ** (rows + 1)) ** (permutations // (rows + 1)) <= 1e-4:
        rows += 1
    return permutations // rows, rows
