"""Queries, their first-stage candidates and judgements, read from folders, runs and tables."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidRequest
from ..records import Candidate
from ..rules.residency import merged, metadata_of
from .input_files import (
    TABLES,
    Row,
    is_json_lines,
    is_table,
    number_of,
    read_jsonl,
    read_lines,
    read_rows,
    text_of,
)
from .measures import Qrels

_RUN_COLUMNS = 6
_QREL_COLUMNS = (3, 4)
_QRELS_PLACES = ("qrels/test.tsv", "qrels.txt", "qrels.tsv")
# What a row holds besides where its text may go.
_TEXTS = frozenset({"text", "title", "passage", "query"})


@dataclass(frozen=True, slots=True)
class Topic:
    """A query and its candidates, best first, with their document ids."""

    qid: str
    query: str
    docids: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A collection to measure on.

    qrels: judgements, empty where nothing is judged
    """

    name: str
    topics: tuple[Topic, ...]
    qrels: Qrels

    @property
    def judged(self) -> "Dataset":
        """Keep only the topics that have judgements."""
        topics = tuple(topic for topic in self.topics if topic.qid in self.qrels)
        return replace(self, topics=topics)


def read(place: Path, *, run: Path | None = None, qrels: Path | None = None) -> Dataset:
    """Read a folder with a run, or a table of (query, passage, label): CSV, TSV, JSON (lines).

    `qrels` replaces the judgements: TREC or BEIR columns, or a table with qid, docid and label.
    Raises `InvalidRequest`.
    """
    if not place.is_file():
        found = read_folder(place, run=run)
    elif run is None and is_table(place):
        found = read_table(place)
    else:
        raise InvalidRequest(
            f"{place} is a file; expected a table of query, passage and label "
            f"({', '.join(sorted(TABLES))}), and no run beside it, or a folder"
        )
    if qrels is None:
        return found
    # Judgements of BEIR and TREC are called .tsv, too.
    named = is_table(qrels) and qrels.suffix.lower() != ".tsv"
    return replace(found, qrels=read_judgements(qrels) if named else read_qrels(qrels))


def read_folder(folder: Path, *, run: Path | None = None) -> Dataset:
    """Read a BEIR folder with a TREC run, or a folder of `rerank/*.jsonl` lines.

    `run` may be left out where the folder holds exactly one. Candidates are in order of their
    score in the run, ties in the order of the file. Raises `InvalidRequest`.
    """
    if not folder.is_dir():
        raise InvalidRequest(
            f"no folder at {folder}; expected a BEIR folder or one with rerank/*.jsonl"
        )
    run = run or _only_run(folder)
    found = (folder / name for name in _QRELS_PLACES)
    path = next((path for path in found if path.is_file()), None)
    judgements = {} if path is None else read_qrels(path)
    if is_json_lines(run):
        topics, inline = _rerank_lines(run)
        return Dataset(f"{folder.name}/{run.stem}", topics, judgements or inline)
    return Dataset(folder.name, _beir_topics(folder, run), judgements)


def read_table(path: Path) -> Dataset:
    """Read a table of query, passage and label.

    Passages of a query are its candidates, in the order of the file. A blank label means not
    judged. `qid`, `docid` and `prior` are used where there are such columns. Raises
    `InvalidRequest`.
    """
    topics: dict[str, list[tuple[str, Candidate]]] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, row in _rows(path, ("query", "passage", "label")):
        qid = str(row.get("qid") or row["query"])
        docid = str(row.get("docid") or f"line {number}")
        place = f"{path}:{number}"
        queries.setdefault(qid, text_of(row["query"], place, "query"))
        prior = number_of(row.get("prior"), place, "prior")
        found = _candidate(row, text_of(row["passage"], place, "passage"), prior)
        topics.setdefault(qid, []).append((docid, found))
        label = _label(row["label"], place)
        if label is not None:
            qrels.setdefault(qid, {})[docid] = label
    made = (Topic(qid, queries[qid], *zip(*rows, strict=True)) for qid, rows in topics.items())
    return Dataset(path.stem, tuple(made), qrels)


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Read only judgements from a table with the columns qid, docid and label."""
    qrels: dict[str, dict[str, int]] = {}
    for number, row in _rows(path, ("qid", "docid", "label")):
        label = _label(row["label"], f"{path}:{number}")
        if label is not None:
            qrels.setdefault(str(row["qid"]), {})[str(row["docid"])] = label
    return qrels


def subset(
    dataset: Dataset, *, n: int | None = None, seed: int = 0, depth: int | None = None
) -> Dataset:
    """Draw `n` topics and keep their first `depth` candidates; None keeps all."""
    drawn = dataset if n is None else sample(dataset, n, seed=seed)
    return drawn if depth is None else shorten(drawn, depth)


def sample(dataset: Dataset, n: int, *, seed: int = 0) -> Dataset:
    """Draw `n` topics (all, if there are no more), keeping their order; the seed fixes which."""
    if n >= len(dataset.topics):
        return dataset
    places = sorted(random.Random(seed).sample(range(len(dataset.topics)), n))  # noqa: S311
    return replace(dataset, topics=tuple(dataset.topics[place] for place in places))


def shorten(dataset: Dataset, depth: int) -> Dataset:
    """Keep each topic's first `depth` candidates."""
    return replace(
        dataset,
        topics=tuple(
            replace(topic, docids=topic.docids[:depth], candidates=topic.candidates[:depth])
            for topic in dataset.topics
        ),
    )


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: TREC's four columns, or BEIR's three with a header."""
    found: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        parts = line.split()
        if number == 1 and parts[-1] == "score":
            continue
        if len(parts) not in _QREL_COLUMNS or not parts[-1].lstrip("-").isdigit():
            raise InvalidRequest(
                f"{path}:{number} reads {line[:40]!r}; expected 'query-id document-id relevance', "
                "or TREC's 'query-id 0 document-id relevance'"
            )
        found.setdefault(parts[0], {})[parts[-2]] = int(parts[-1])
    return found


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run into query id -> (document id, score), best first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for number, line in read_lines(path):
        parts = line.split()
        try:
            qid, _, docid, _, score, _ = parts
            found.setdefault(qid, []).append((docid, float(score)))
        except ValueError as error:
            raise InvalidRequest(
                f"{path}:{number} reads {line[:40]!r}; expected the {_RUN_COLUMNS} columns of a "
                "TREC run: 'query-id Q0 document-id rank score name'"
            ) from error
    return {qid: sorted(hits, key=lambda hit: -hit[1]) for qid, hits in found.items()}


def _beir_topics(folder: Path, run: Path) -> tuple[Topic, ...]:
    hits = read_run(run)
    queries = {qid: text for qid, text, _ in _objects(folder / "queries.jsonl")}
    wanted = {docid for ranked in hits.values() for docid, _ in ranked}
    documents: dict[str, Candidate] = {}
    for docid, text, row in _objects(folder / "corpus.jsonl"):
        if docid in wanted:
            found = _candidate(row, f"{row.get('title') or ''} {text}".strip())
            if (earlier := documents.get(docid)) is not None:
                found = replace(found, metadata=merged((earlier.metadata, found.metadata)))
            documents[docid] = found
    _refuse_unknown("queries", hits, queries, run)
    _refuse_unknown("documents", wanted, documents, run)
    return tuple(
        Topic(
            qid,
            queries[qid],
            tuple(docid for docid, _ in ranked),
            tuple(replace(documents[docid], prior=score) for docid, score in ranked),
        )
        for qid, ranked in hits.items()
    )


def _rerank_lines(path: Path) -> tuple[tuple[Topic, ...], Qrels]:
    topics: list[Topic] = []
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_jsonl(path):
        place = f"{path}:{number}"
        try:
            qid, query = str(line["qid"]), text_of(line["query"], place, "query")
            rows = [_row(row, place) for row in _sequence(line["candidates"])]
            docids, candidates, relevances = zip(*rows, strict=True)
        except InvalidRequest:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                f"{place} lacks something ({error!r}); expected "
                "{qid, query, candidates: [{docid, text, rank, score, rel}]}"
            ) from error
        topics.append(Topic(qid, query, docids, candidates))
        judged = {d: r for d, r in zip(docids, relevances, strict=True) if r is not None}
        if judged:
            qrels[qid] = judged
    return tuple(topics), qrels


def _row(row: Row, place: str) -> tuple[str, Candidate, int | None]:
    prior = number_of(row.get("score"), place, "score")
    found = _candidate(row, text_of(row["text"], place, "text"), prior)
    return str(row["docid"]), found, _label(row.get("rel"), place)


def _candidate(row: Row, text: str, prior: float | None = None) -> Candidate:
    """Return a row's text as a candidate, with all in which the row may carry a label."""
    others = {name: value for name, value in row.items() if name not in _TEXTS}
    return Candidate(text, prior=prior, metadata=metadata_of(others))


def _sequence(value: object) -> Sequence[Row]:
    if not isinstance(value, list):
        raise TypeError("candidates is no list")
    return value


def _objects(path: Path) -> Iterator[tuple[str, str, Row]]:
    """Yield id, text and all columns of every line of a BEIR file."""
    for number, row in read_jsonl(path):
        if "_id" not in row or "text" not in row:
            raise InvalidRequest(
                f"{path}:{number} has the keys {sorted(row)}; expected _id and text"
            )
        yield str(row["_id"]), text_of(row["text"], f"{path}:{number}", "text"), row


def _only_run(folder: Path) -> Path:
    found = sorted([*folder.glob("candidates/*.trec"), *folder.glob("rerank/*.jsonl")])
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
    raise InvalidRequest(f"{folder} holds these runs: {names}; say which one with --run")


def _refuse_unknown(
    kind: str, wanted: Iterable[str], known: Mapping[str, object], run: Path
) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InvalidRequest(
            f"{run} names {len(unknown)} {kind} that are not there, such as {unknown[0][:40]!r}; "
            "expected a run over the same collection"
        )


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the columns of every row; refuse a row without those wanted."""
    for number, row in read_rows(path):
        missing = [name for name in wanted if row.get(name) is None]
        if missing:
            raise InvalidRequest(
                f"{path}:{number} lacks {', '.join(missing)}; found the columns {', '.join(row)}"
            )
        yield number, row


def _label(value: object, place: str) -> int | None:
    """Return a judgement, None for not judged; a decision is 1 or 0."""
    number = number_of(int(value) if isinstance(value, bool) else value, place, "label")
    return None if number is None else round(number)
