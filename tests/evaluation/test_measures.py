"""Measures equal trec_eval's."""

import math
import subprocess
import sys

import ir_measures
import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation import comparison, datasets, measures
from tests.small_collections import beir_folder

ORDERS = {"q1": ["a", "b", "c", "d"], "q2": ["x", "y", "z"], "q3": ["m"]}
QRELS = {"q1": {"b": 2, "d": 1, "e": 3}, "q2": {"z": 1}, "q9": {"a": 1}}
NAMES = ("nDCG@10", "RR@10", "AP(rel=2)@100", "P@2", "R@3")


def test_values_equal_those_of_ir_measures():
    """Every value is what ir-measures computes from the same order as a run."""
    run = [
        ir_measures.ScoredDoc(qid, docid, 100.0 - place)
        for qid, ranked in ORDERS.items()
        for place, docid in enumerate(ranked)
    ]
    qrels = [ir_measures.Qrel(q, d, r) for q, ds in QRELS.items() for d, r in ds.items()]
    parsed = [ir_measures.parse_measure(name) for name in NAMES]
    expected = {
        (str(one.measure), one.query_id): one.value
        for one in ir_measures.iter_calc(parsed, qrels, run)
        if one.query_id in ORDERS
    }
    found = measures.per_query(ORDERS, QRELS, NAMES)
    assert {(m, q): v for m, values in found.items() for q, v in values.items()} == expected


def test_a_comparison_reports_what_ir_measures_computes_from_the_files(tmp_path):
    """From a run and judgements as files to the report's values, trec_eval's numbers come out."""
    folder = beir_folder(tmp_path / "pets")
    (run,) = folder.glob("candidates/*.trec")
    dataset = datasets.read(folder)
    found = comparison.compare(dataset, {"lexical": Reranker("lexical")}, measures=NAMES)
    qrels = [
        ir_measures.Qrel(qid, docid, relevance)
        for qid, judged in dataset.qrels.items()
        for docid, relevance in judged.items()
    ]
    parsed = [ir_measures.parse_measure(name) for name in NAMES]
    expected = {
        (str(one.measure), one.query_id): one.value
        for one in ir_measures.iter_calc(parsed, qrels, ir_measures.read_trec_run(str(run)))
    }
    values = found.systems[0].values
    assert {(m, q): v for m, one in values.items() for q, v in one.items()} == expected


def test_values_equal_those_by_hand():
    """Gains are linear in nDCG: (2/log2(3) + 1/log2(5)) / (3 + 2/log2(3) + 1/2)."""
    found = measures.per_query(ORDERS, QRELS, ["nDCG@10", "RR@10"])
    gained = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@10"]["q1"] == pytest.approx(gained / ideal)
    assert found["RR@10"] == {"q1": pytest.approx(1 / 2), "q2": pytest.approx(1 / 3)}


def test_only_queries_both_ranked_and_judged_count():
    """A judged query that was not ranked, or the reverse, is not measured."""
    assert set(measures.per_query(ORDERS, QRELS, ["P@2"])["P@2"]) == {"q1", "q2"}


def test_a_query_without_relevant_documents_counts_zero():
    """A query judged, but with nothing relevant, lowers the mean."""
    assert measures.per_query({"q": ["a"]}, {"q": {"a": 0}}, ["nDCG@10"]) == {"nDCG@10": {"q": 0.0}}


@pytest.mark.parametrize("name", ["nDGC@10", "", "P@", "__import__('os')"])
def test_an_unknown_measure_is_refused(name):
    """The error quotes the name and gives examples."""
    with pytest.raises(InvalidRequest, match="no measure is called"):
        measures.check([name])


def test_a_missing_extra_is_named():
    """Without ir-measures the error says which extra to install."""
    code = (
        "import sys; sys.modules['ir_measures'] = None\n"
        "from rerank_plugins.evaluation import measures\n"
        "try:\n    measures.check(['P@1'])\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'rerank-plugins[eval]'" in done.stdout
