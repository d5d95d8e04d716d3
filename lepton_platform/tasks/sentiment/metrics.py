"""How good is good enough for reviews: better than counting words, on films never seen."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.stage import StageFailed
from lepton_platform.training.classification import Classification, Slice

_WORDS = ((1, 10), (11, 20), (21, 30), (31, 60), (61, None))  # in a review; the median is 20
_FILM_REVIEWS = ((1, 1), (2, 10), (11, 20), (21, None))  # of the film, among these rows
_C = 30.0  # inverse strength of L2; the best of 0.3, 1, 3, 10, 30, 100 on the validation films


def tfidf_logistic_regression(train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> NDArray:
    """(N, C) probabilities by words and pairs of words: what the network has to beat (Wang & Manning 2012)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    known = sorted(set(train["label"].to_pylist()))
    if len(known) < 2:
        raise StageFailed(f"The training rows hold one label only ({', '.join(known)}): there is nothing to learn.")
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, strip_accents="unicode")
    model = LogisticRegression(C=_C, max_iter=1_000)
    model.fit(words.fit_transform(train["text"].to_pylist()), train["label"].to_pylist())
    chances = np.zeros((rows.num_rows, len(labels)))
    columns = [list(labels).index(name) for name in model.classes_]
    chances[:, columns] = model.predict_proba(words.transform(rows["text"].to_pylist()))
    return chances


def slices(rows: pa.Table) -> list[Slice]:
    """By length of the review, and by how many reviews the film has."""
    words = np.array([len(text.split()) for text in rows["text"].to_pylist()])
    films, index, counts = np.unique(
        np.array(rows["film_id"].to_pylist(), dtype=str), return_inverse=True, return_counts=True
    )
    del films
    return [*_between("words", words, _WORDS), *_between("film's reviews", counts[index], _FILM_REVIEWS)]


def _between(dimension: str, sizes: NDArray, bounds: Sequence[tuple[int, int | None]]) -> list[Slice]:
    parts = []
    for low, high in bounds:
        inside = (sizes >= low) & (sizes <= high if high is not None else True)
        name = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
        parts.append(Slice(dimension, name, inside))
    return parts


def excerpt(rows: pa.Table) -> list[str]:
    """A review as a person is shown it, after the film's name."""
    films = rows["film" if "film" in rows.column_names else "film_id"].to_pylist()
    return [f"{film}: {text}" for film, text in zip(films, rows["text"].to_pylist(), strict=True)]


EVALUATOR = Classification(
    label="label",
    group="film_id",  # a film's merit moves all its reviews
    yardstick_name="tf-idf + logistic regression",
    yardstick_scores=tfidf_logistic_regression,
    slices=slices,
    excerpt=excerpt,
)
