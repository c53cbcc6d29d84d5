"""Passages become pairs and logits become scores, whatever was cut, refused or left out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules.batching import Batch, plan
from rerank_plugins.scoring.text.pairs import Windowing, candidate_scores, make_pairs, read
from rerank_plugins.scoring.text.tokenizer import PairTokenizer
from tests import tiny

lengths = st.lists(st.integers(min_value=1, max_value=120), min_size=1, max_size=30)


def made(sizes, long):
    """Lay out passages of these sizes beside a query of 4 tokens, room for 40."""
    passages = [np.full(size, i, dtype=np.int32) for i, size in enumerate(sizes)]
    query = np.zeros(4, dtype=np.int32)
    windowing = Windowing(long, 0.5, 3)
    return make_pairs(query, passages, room_tokens=40, special_tokens=3, windowing=windowing)


@given(lengths, st.sampled_from(["window", "truncate", "error"]))
def test_every_score_comes_back_to_its_candidate(sizes, long):
    """A pair's logit is its owner's number here: so must be the candidate's score."""
    pairs = made(sizes, long)
    batches = plan(pairs.lengths, max_batch_tokens=128)
    logits = [
        np.array([pairs.ids[i][0] for i in batch.pairs], dtype=np.float32) for batch in batches
    ]
    scores, done = candidate_scores(pairs, batches, logits, "max")
    assert (scores[done] == np.flatnonzero(done)).all()
    assert (done == ~pairs.refused).all()
    assert (pairs.refused == (np.array(sizes) > 40) & (long == "error")).all()


@given(lengths)
def test_a_candidate_with_a_window_that_did_not_run_is_not_done(sizes):
    """Half a passage is no score."""
    pairs = made(sizes, "window")
    batches = plan(pairs.lengths, max_batch_tokens=128)
    logits = [None, *(np.zeros(len(batch.pairs), np.float32) for batch in batches[1:])]
    _, done = candidate_scores(pairs, batches, logits, "max")
    missed = {int(pairs.owners[i]) for i in batches[0].pairs}
    assert {int(i) for i in np.flatnonzero(~done)} == missed


@given(lengths)
def test_tokens_are_read_or_counted_as_cut(sizes):
    """What windows leave out at the end is reported, token by token."""
    pairs = made(sizes, "truncate")
    read = np.bincount(pairs.owners, [len(one) for one in pairs.ids], minlength=len(sizes))
    assert (read + pairs.truncated == np.array(sizes)).all()


def test_reading_lays_out_texts_and_tells_what_was_read_before(tmp_path):
    """Of two texts, one of them seen before, both become pairs, and one is a hit."""
    tiny.tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = PairTokenizer(tmp_path / "tokenizer.json")
    tokenizer.passages(["a red fox"])
    pairs, hits = read(
        tokenizer,
        "what is a fox",
        ["a red fox", "the blue hen in the tree"],
        room=lambda query: tokenizer.room(query, 10),
        windowing=Windowing("truncate", 0.5, 1),
    )
    room = 10 - len(tokenizer.query("what is a fox")) - tokenizer.template.special_tokens
    assert hits == 1
    assert [len(one) for one in pairs.ids] == [3, room]
    assert pairs.truncated.tolist() == [0, 6 - room]


@given(lengths, st.integers(16, 60))
def test_small_windows_are_for_passages_that_do_not_fit(sizes, window):
    """What fits is one pair; of what does not, all windows but the first have the size asked."""
    passages = [np.full(size, i, dtype=np.int32) for i, size in enumerate(sizes)]
    windowing = Windowing("window", 0.5, None, window)
    query = np.zeros(4, dtype=np.int32)
    pairs = make_pairs(query, passages, room_tokens=40, special_tokens=3, windowing=windowing)
    for owner, size in enumerate(sizes):
        mine = [len(ids) for ids, of in zip(pairs.ids, pairs.owners, strict=True) if of == owner]
        assert mine[0] == min(size, 40)
        assert all(one <= min(window, 40) for one in mine[1:])
        assert bool(mine[1:]) == (size > 40)
    assert not pairs.truncated.any()


def test_windows_start_behind_the_tokens_that_end_sentences():
    """Of a passage whose 17th and 30th tokens end sentences, the nearer end begins a window."""
    passage = np.arange(60, dtype=np.int32)
    pairs = make_pairs(
        np.zeros(4, dtype=np.int32),
        [passage],
        room_tokens=40,
        special_tokens=3,
        windowing=Windowing("window", 0.5, None, 32),
        ends=(16, 29),
    )
    assert [(int(one[0]), int(one[-1])) for one in pairs.ids] == [(0, 39), (30, 59)]


def test_as_many_small_windows_as_reach_as_far_as_eight_large_ones():
    """Eight windows of 40 end at token 180; what lies behind is reported as cut, however small."""
    passage = np.zeros(200, dtype=np.int32)
    for window in (None, 16, 32):
        windowing = Windowing("window", 0.5, None, window)
        query = np.zeros(4, dtype=np.int32)
        pairs = make_pairs(query, [passage], room_tokens=40, special_tokens=3, windowing=windowing)
        assert 0 <= 20 - pairs.truncated[0] < (window or 40) / 2


def test_one_window_takes_all_the_room():
    """Where only one window is read, it reads as much as a pair can hold."""
    passage = np.zeros(200, dtype=np.int32)
    windowing = Windowing("window", 0.5, 1, 16)
    query = np.zeros(4, dtype=np.int32)
    pairs = make_pairs(query, [passage], room_tokens=40, special_tokens=3, windowing=windowing)
    assert pairs.truncated.tolist() == [160]


def test_passages_that_there_was_no_time_to_read_are_not_done():
    """They have no pair and no score, and the others have theirs."""
    windowing = Windowing("window", 0.5, None)
    ids = [np.arange(n, dtype=np.int32) for n in (90, 0, 5)]
    pairs = make_pairs(
        np.zeros(3, np.int32),
        ids,
        room_tokens=40,
        special_tokens=3,
        windowing=windowing,
        unread=frozenset({1}),
    )
    assert set(pairs.owners.tolist()) == {0, 2}
    batch = Batch(tuple(range(len(pairs.ids))), 46)
    logits = [np.ones(len(pairs.ids), np.float32)]
    scores, done = candidate_scores(pairs, [batch], logits, "max")
    assert done.tolist() == [True, False, True]
    assert scores[done].tolist() == [1.0, 1.0]


@given(room=st.integers(16, 60), limit=st.none() | st.integers(2, 9), size=st.none() | st.just(20))
def test_windows_depend_on_no_more_tokens_than_are_read(room, limit, size):
    """Beyond `most_tokens`, a passage may go on as it likes."""
    windowing = Windowing("window", 0.5, limit, size)
    most = windowing.most_tokens(room)
    some, more = (np.arange(n, dtype=np.int32) for n in (most, 3 * most))
    assert windowing.spans(some, room, ()) == windowing.spans(more, room, ())
