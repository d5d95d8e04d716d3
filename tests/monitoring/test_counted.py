"""What was served, counted: the same whatever pieces the rows come in, and read back as it was kept."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.counted import CHEAP_ROWS, Counted, load, save
from lepton_platform.monitoring.sampling import by_hash_of_id
from lepton_platform.tasks.sentiment import drift as sentiment


def rows(count: int) -> pa.Table:
    rng = np.random.default_rng(count)
    ids, label = [f"row {n}" for n in range(count)], rng.choice(["fresh", "rotten"], count)
    return pa.table({"id": ids, "label": label, "score": rng.random(count), "text": ["A fine film."] * count})


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 60), st.lists(st.integers(0, 400), max_size=3), st.booleans())
def test_the_sample_is_that_of_all_rows_however_they_came(count, most, cuts, merged):
    whole, total = rows(count), Counted(most)
    cuts = sorted({0, *(cut for cut in cuts if cut < count)})
    for start, stop in zip(cuts, [*cuts[1:], count], strict=True):
        one = Counted(most) if merged else total
        one.update(whole.slice(start, stop - start), sentiment)
        if merged:
            total.merge(one)
    assert total.ids == by_hash_of_id(whole, most)["id"].to_pylist()
    assert total.rows == total.sketches.rows("label") == total.sketches.rows("score") == count


def test_what_is_cheap_to_tell_of_an_input_is_told_of_one_row_in_sixteen():
    total = Counted(10)
    total.update(rows(8_000), sentiment)
    assert total.sketches.rows("score") == 8_000
    assert abs(total.sketches.rows("characters") - 8_000 / CHEAP_ROWS) < 100


def test_a_count_is_read_back_under_its_stamp_and_no_other(tmp_path):
    path, known = tmp_path / "hours" / "2026-03-01T14.parquet", {"a": Counted(5), "b": Counted(5)}
    for one in known.values():
        one.update(rows(300), sentiment)
    save(known, path, "of this")
    found = load(path, "of this", 5)
    assert found is not None and found.keys() == known.keys()
    for tag, one in found.items():
        assert (one.rows, one.ids) == (known[tag].rows, known[tag].ids)
        assert one.sketches.dump() == known[tag].sketches.dump()
    assert load(path, "of that", 5) is None and load(tmp_path / "none", "of this", 5) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert load(path, "of this", 5) is None
