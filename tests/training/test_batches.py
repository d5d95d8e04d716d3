"""Every row once, whatever the sizes; the same order for the same seed; little padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.training.batches import batches_in_epoch, by_size, epoch_batches, mixed_seed, shares

sizes = st.lists(st.integers(1, 500), min_size=1, max_size=400).map(np.array)


@given(sizes, st.integers(1, 40), st.integers(0, 99), st.integers(0, 9))
def test_an_epoch_has_every_row_once(sizes, batch_rows, seed, epoch):
    batches = epoch_batches(sizes, batch_rows, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(sizes)))
    assert len(batches) == batches_in_epoch(len(sizes), batch_rows)
    assert max(map(len, batches)) <= batch_rows
    again = epoch_batches(sizes, batch_rows, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(sizes, st.integers(1, 40))
def test_reading_order_has_every_row_once_small_first(sizes, batch_rows):
    order = np.concatenate(by_size(sizes, batch_rows))
    assert sorted(order) == list(range(len(sizes)))
    assert (np.diff(sizes[order]) >= 0).all()


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_differ_by_one_row_at_most_and_keep_the_order(rows, parts):
    batch = np.arange(rows)
    found = shares(batch, parts)
    assert len(found) == parts
    assert np.array_equal(np.concatenate(found), batch)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_epochs_and_seeds_differ():
    sizes = np.full(100, 5)
    first = np.concatenate(epoch_batches(sizes, 10, 1, 0))
    assert not np.array_equal(first, np.concatenate(epoch_batches(sizes, 10, 1, 1)))
    assert not np.array_equal(first, np.concatenate(epoch_batches(sizes, 10, 2, 0)))


def test_batches_of_like_size_waste_little():
    sizes = np.random.default_rng(0).integers(5, 65, 5_000)
    padded = sum(len(b) * sizes[b].max() for b in epoch_batches(sizes, 32, 0, 0))
    assert padded < 1.05 * sizes.sum()  # drawn at random it would be 1.8 times


def test_seeds_of_neighbours_are_far_apart():
    seeds = {mixed_seed(7, step, part) for step in range(200) for part in range(4)}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)
