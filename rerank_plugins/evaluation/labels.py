"""Labels as people keep them: a table of (query, passage, label), and one to fill in."""

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import InvalidRequest
from ..records import Candidate
from .datasets import Dataset, Topic, read_jsonl
from .runs import Ranking

COLUMNS = ("qid", "query", "docid", "passage", "label")


def read(path: Path) -> Dataset:
    """Read a CSV or JSON-lines file of query, passage and label.

    Passages of a query are its candidates, in the order of the file. A blank label means not
    judged. `qid`, `docid` and `prior` are used where there are such columns. Raises
    `InvalidRequest`.
    """
    topics: dict[str, list[Mapping[str, object]]] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, row in _rows(path):
        _require(path, number, row, ("query", "passage", "label"))
        qid = str(row.get("qid") or row["query"])
        docid = str(row.get("docid") or f"line {number}")
        topics.setdefault(qid, []).append({**row, "docid": docid})
        label = _label(path, number, row["label"])
        if label is not None:
            qrels.setdefault(qid, {})[docid] = label
    return Dataset(path.stem, tuple(_topic(qid, rows) for qid, rows in topics.items()), qrels)


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Read only who is judged how, from a file with qid, docid and label."""
    qrels: dict[str, dict[str, int]] = {}
    for number, row in _rows(path):
        _require(path, number, row, ("qid", "docid", "label"))
        label = _label(path, number, row["label"])
        if label is not None:
            qrels.setdefault(str(row["qid"]), {})[str(row["docid"])] = label
    return qrels


def write_pool(rankings: Sequence[Ranking], path: Path, *, depth: int, seed: int = 0) -> int:
    """Write what the rankings have in their first `depth` as a table to label; return its rows.

    Rows of a query are shuffled: whoever labels must not see which system liked what.
    """
    draw = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for place, topic in enumerate(rankings[0].dataset.topics):
            pool = {at for one in rankings for at in one.answers[place].order[:depth]}
            for at in draw.sample(sorted(pool), len(pool)):
                text = topic.candidates[at].text
                table.writerow((topic.qid, topic.query, topic.docids[at], text, ""))
                rows += 1
    return rows


def _topic(qid: str, rows: Sequence[Mapping[str, object]]) -> Topic:
    return Topic(
        qid,
        str(rows[0]["query"]),
        tuple(str(row["docid"]) for row in rows),
        tuple(Candidate(str(row["passage"]), prior=_prior(row.get("prior"))) for row in rows),
    )


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from enumerate(csv.DictReader(file), start=2)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path} cannot be read: {error}; expected CSV with a header, in UTF-8"
        raise InvalidRequest(message) from error


def _require(path: Path, number: int, row: Mapping[str, object], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if row.get(name) is None]
    if missing:
        found = ", ".join(str(name) for name in row)
        message = f"{path}:{number} lacks {', '.join(missing)}; found the columns {found}"
        raise InvalidRequest(message)


def _label(path: Path, number: int, value: object) -> int | None:
    text = str(value).strip()
    if not text:
        return None
    try:
        return round(float(text))
    except ValueError as error:
        message = (
            f"{path}:{number} has the label {text[:40]!r}; expected a number, 0 for not relevant, "
            "or nothing for not judged"
        )
        raise InvalidRequest(message) from error


def _prior(value: object) -> float | None:
    try:
        return float(str(value)) if value not in {None, ""} else None
    except ValueError:
        return None
