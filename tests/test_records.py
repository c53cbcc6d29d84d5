"""The records."""

import dataclasses

import pytest

from rerank_plugins import records
from rerank_plugins.records import Candidate, Code, Decision, Hit, Request, Result, Usage

RECORDS = [
    one
    for one in vars(records).values()
    if dataclasses.is_dataclass(one) and one.__module__ == records.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_is_frozen_and_slotted(record):
    """Nobody can change a record, nor hang anything on it."""
    assert record.__dataclass_params__.frozen
    assert hasattr(record, "__slots__")
    assert "__dict__" not in record.__slots__


def test_usage_adds_up_field_by_field():
    """The usage of two stages is the sum of theirs."""
    one = Usage(*range(1, 10))
    assert Usage(*range(1, 10)) + one == Usage(*(2 * number for number in range(1, 10)))
    assert one + Usage() == one


def test_every_code_has_a_word_and_a_meaning():
    """Decision codes are distinct snake-case words, each explained in a sentence."""
    words = [code.code for code in Code]
    assert len(set(words)) == len(words)
    assert all(word == code.name.lower() for word, code in zip(words, Code, strict=True))
    assert all(code.meaning.endswith(".") for code in Code)


def test_a_result_is_a_sequence_of_its_hits():
    """A result can be iterated, measured and indexed; its order stays whole."""
    hits = (Hit(2, 1.0), Hit(0, 0.5))
    result = Result(hits, (2, 0, 1), request_id="r", model="m")
    assert list(result) == list(hits)
    assert len(result) == 2
    assert result[0].index == 2


def test_a_request_holds_what_it_was_given():
    """Defaults mean: all candidates, no budget, the reranker's own strictness."""
    request = Request("q", (Candidate("a"),))
    assert (request.top_k, request.budget.time_s, request.strict) == (None, None, None)
    assert Decision("step", Code.CUT, 1).detail == ""
