"""Shards: their sizes, and how they are handed to tasks."""

import itertools

import pytest

from training.shards import LONGEST_S, MAX_SHARDS, SHORTEST_S, cut, pack, unpack


@pytest.mark.parametrize("workers", [1, 2, 16, 64])
@pytest.mark.parametrize("seconds", [None, 1e-5, 0.05, 5.0, 900.0])
@pytest.mark.parametrize("trials", [0, 1, 3, 40, 1_500, 100_000])
def test_every_trial_is_in_one_shard_in_order_and_there_are_not_too_many(trials, seconds, workers):
    shards = cut(range(trials), workers, seconds)
    assert list(itertools.chain(*shards)) == list(range(trials))
    assert all(shards)
    assert len(shards) <= MAX_SHARDS
    assert len(shards) >= min(trials, 2 * workers)


def test_shards_shrink_to_what_is_worth_a_task():
    sizes = [len(shard) for shard in cut(range(500), 2, 0.05)]
    assert sizes[:2] == [125, 94]
    # The last one takes what is left.
    assert min(sizes[:-1]) * 0.05 >= SHORTEST_S
    # A worker that gets the last one early waits for no more than one trial.
    assert [len(shard) for shard in cut(range(40), 2, 5.0)][-1] == 1


def test_long_trials_are_not_gathered_in_long_shards():
    assert max(len(shard) for shard in cut(range(400), 2, 60.0)) * 60 <= LONGEST_S


def test_a_size_that_is_asked_for_is_kept_unless_there_were_too_many():
    assert [len(shard) for shard in cut(range(10), 2, 60.0, trials_per_task=4)] == [4, 4, 2]
    assert len(cut(range(10_000), 2, 60.0, trials_per_task=1)) == MAX_SHARDS


@pytest.mark.parametrize(
    ("ids", "text"),
    [([7], "7"), ([1, 2, 3], "1-3"), ([5, 6, 2, 9, 10, 11], "5-6,2,9-11"), ([3, 2, 1], "3,2,1")],
)
def test_ids_become_ranges_and_come_back(ids, text):
    assert pack(ids) == text
    assert unpack(text) == ids
