"""Queries, their first-stage candidates and judgements, from the files people have."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidRequest
from ..records import Candidate
from .measures import Qrels

_RUN_COLUMNS = 6
_QREL_COLUMNS = (3, 4)
_QRELS_PLACES = ("qrels/test.tsv", "qrels.txt", "qrels.tsv")


@dataclass(frozen=True, slots=True)
class Topic:
    """One query and its candidates, best first, with their document ids."""

    qid: str
    query: str
    docids: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A collection to measure on. `qrels` is empty where nothing is judged."""

    name: str
    topics: tuple[Topic, ...]
    qrels: Qrels

    @property
    def judged(self) -> "Dataset":
        """Keep only the topics that have judgements."""
        return replace(self, topics=tuple(one for one in self.topics if one.qid in self.qrels))


def read(folder: Path, *, run: Path | None = None, qrels: Path | None = None) -> Dataset:
    """Read a BEIR folder with a TREC run, or a folder of `rerank/*.jsonl` lines.

    `run` may be left out where the folder holds exactly one. Candidates are in order of their
    score in the run, ties in the order of the file. Raises `InvalidRequest`.
    """
    if not folder.is_dir():
        message = f"no folder at {folder}; expected a BEIR folder or one with rerank/*.jsonl"
        raise InvalidRequest(message)
    run = run or _only_run(folder)
    judgements = _find_qrels(folder, qrels)
    if run.suffix == ".jsonl":
        topics, inline = _rerank_lines(run)
        return Dataset(_name(folder, run), topics, judgements or inline)
    return Dataset(folder.name, _beir_topics(folder, run), judgements)


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
            replace(one, docids=one.docids[:depth], candidates=one.candidates[:depth])
            for one in dataset.topics
        ),
    )


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: TREC's four columns, or BEIR's three with a header."""
    found: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        parts = line.split()
        if number == 1 and parts[-1] == "score":
            continue
        if len(parts) not in _QREL_COLUMNS or not parts[-1].lstrip("-").isdigit():
            message = (
                f"{path}:{number} reads {line[:40]!r}; expected 'query-id document-id relevance', "
                "or TREC's 'query-id 0 document-id relevance'"
            )
            raise InvalidRequest(message)
        found.setdefault(parts[0], {})[parts[-2]] = int(parts[-1])
    return found


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run into query id -> (document id, score), best first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for number, line in _lines(path):
        parts = line.split()
        try:
            qid, _, docid, _, score, _ = parts
            found.setdefault(qid, []).append((docid, float(score)))
        except ValueError as error:
            message = (
                f"{path}:{number} reads {line[:40]!r}; expected the {_RUN_COLUMNS} columns of a "
                "TREC run: 'query-id Q0 document-id rank score name'"
            )
            raise InvalidRequest(message) from error
    return {qid: sorted(hits, key=lambda hit: -hit[1]) for qid, hits in found.items()}


def read_lines(path: Path) -> Iterator[str]:
    """Give every line of a text file that is not blank. Raises `InvalidRequest`."""
    return (line for _, line in _lines(path))


def read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Give the line number and object of every line of JSON that is not blank."""
    for number, line in _lines(path):
        try:
            value = json.loads(line)
        except ValueError as error:
            message = f"{path}:{number} is not JSON ({error}); expected one object a line"
            raise InvalidRequest(message) from error
        if not isinstance(value, dict):
            message = f"{path}:{number} holds a {type(value).__name__}; expected an object"
            raise InvalidRequest(message)
        yield number, value


def _beir_topics(folder: Path, run: Path) -> tuple[Topic, ...]:
    hits = read_run(run)
    queries = {str(one["_id"]): str(one["text"]) for one in _objects(folder / "queries.jsonl")}
    wanted = {docid for ranked in hits.values() for docid, _ in ranked}
    texts = {
        str(one["_id"]): f"{one.get('title') or ''} {one['text']}".strip()
        for one in _objects(folder / "corpus.jsonl")
        if str(one["_id"]) in wanted
    }
    _refuse_unknown("queries", hits, queries, run)
    _refuse_unknown("documents", wanted, texts, run)
    return tuple(
        Topic(
            qid,
            queries[qid],
            tuple(docid for docid, _ in ranked),
            tuple(Candidate(texts[docid], prior=score) for docid, score in ranked),
        )
        for qid, ranked in hits.items()
    )


def _rerank_lines(path: Path) -> tuple[tuple[Topic, ...], Qrels]:
    topics: list[Topic] = []
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_jsonl(path):
        try:
            qid, query, rows = str(line["qid"]), str(line["query"]), line["candidates"]
            docids, candidates, relevances = zip(*map(_row, _sequence(rows)), strict=True)
        except (KeyError, TypeError, ValueError) as error:
            message = (
                f"{path}:{number} lacks something ({error!r}); expected "
                "{qid, query, candidates: [{docid, text, rank, score, rel}]}"
            )
            raise InvalidRequest(message) from error
        topics.append(Topic(qid, query, docids, candidates))
        judged = {d: r for d, r in zip(docids, relevances, strict=True) if r is not None}
        if judged:
            qrels[qid] = judged
    return tuple(topics), qrels


def _row(row: Mapping[str, object]) -> tuple[str, Candidate, int | None]:
    score, relevance = row.get("score"), row.get("rel")
    prior = float(score) if isinstance(score, int | float) else None
    return (
        str(row["docid"]),
        Candidate(str(row["text"]), prior=prior),
        int(relevance) if isinstance(relevance, int | float) else None,
    )


def _sequence(value: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(value, list):
        message = "candidates is no list"
        raise TypeError(message)
    return value


def _objects(path: Path) -> Iterator[Mapping[str, object]]:
    for number, value in read_jsonl(path):
        if "_id" not in value or "text" not in value:
            message = f"{path}:{number} has the keys {sorted(value)}; expected _id and text"
            raise InvalidRequest(message)
        yield value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}; expected a text file in UTF-8"
        raise InvalidRequest(message) from error


def _only_run(folder: Path) -> Path:
    found = sorted([*folder.glob("candidates/*.trec"), *folder.glob("rerank/*.jsonl")])
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
    message = f"{folder} holds these runs: {names}; say which one with --run"
    raise InvalidRequest(message)


def _find_qrels(folder: Path, given: Path | None) -> dict[str, dict[str, int]]:
    path = given or next(
        (folder / name for name in _QRELS_PLACES if (folder / name).is_file()), None
    )
    return {} if path is None else read_qrels(path)


def _name(folder: Path, run: Path) -> str:
    return f"{folder.name}/{run.stem}"


def _refuse_unknown(
    kind: str, wanted: Iterable[str], known: Mapping[str, object], run: Path
) -> None:
    unknown = [one for one in wanted if one not in known]
    if unknown:
        message = (
            f"{run} names {len(unknown)} {kind} that are not there, such as {unknown[0][:40]!r}; "
            "expected a run over the same collection"
        )
        raise InvalidRequest(message)
