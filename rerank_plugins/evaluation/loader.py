"""Open a dataset in whichever form it comes."""

from dataclasses import replace
from pathlib import Path

from ..errors import InvalidRequest
from . import datasets, labels
from .datasets import Dataset

_TABLES = frozenset({".csv", ".jsonl"})


def read(place: Path, *, run: Path | None = None, qrels: Path | None = None) -> Dataset:
    """Read a folder with a run, or a table of (query, passage, label) in CSV or JSON lines.

    `qrels` replaces the judgements: TREC or BEIR columns, or a table with qid, docid and label.
    Raises `InvalidRequest`.
    """
    table = qrels is not None and qrels.suffix in _TABLES
    if place.is_file():
        if run is not None or place.suffix not in _TABLES:
            message = (
                f"{place} is a file; expected a .csv or .jsonl table of query, passage and label, "
                "and no run beside it, or a folder"
            )
            raise InvalidRequest(message)
        found = labels.read(place)
        if qrels is not None and not table:
            found = replace(found, qrels=datasets.read_qrels(qrels))
    else:
        found = datasets.read(place, run=run, qrels=None if table else qrels)
    if qrels is not None and table:
        found = replace(found, qrels=labels.read_judgements(qrels))
    return found
