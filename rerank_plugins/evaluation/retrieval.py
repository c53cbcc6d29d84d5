"""Candidates for queries that have none: BM25 over a corpus. Needs the extra `eval`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import InvalidRequest
from ..records import Candidate
from .datasets import Dataset, Topic
from .input_files import Row, read_rows


def retrieve(
    queries: Path, corpus: Path, *, depth: int, progress: Callable[[], None] = lambda: None
) -> Dataset:
    """Search `corpus` for every query; each keeps its best `depth` that share a word with it.

    Files hold one text a line, or a table with "text" (BEIR's corpus.jsonl and queries.jsonl;
    "title" goes before it, "query" serves as well). `progress` is called once a query. Raises
    `InvalidRequest` for files without texts.
    """
    asked, passages = list(_texts(queries)), list(_texts(corpus))
    search = _search(passages, corpus)
    topics: list[Topic] = []
    for number, query in enumerate(asked):
        found = search(query, min(depth, len(passages)))
        progress()
        topics.append(
            Topic(
                str(number),
                query,
                tuple(str(place) for place, _ in found),
                tuple(Candidate(passages[place], prior=score) for place, score in found),
            )
        )
    return Dataset(corpus.stem, tuple(topics), {})


def count(path: Path) -> int:
    """Count the texts of a file. Raises `InvalidRequest`."""
    return sum(1 for _ in _texts(path))


def _search(passages: Sequence[str], corpus: Path) -> Callable[[str, int], list[tuple[int, float]]]:
    try:
        import bm25s
    except ImportError as error:
        raise ImportError(
            "searching a corpus needs bm25s, which is not installed; "
            "run: pip install 'rerank-plugins[eval]'"
        ) from error
    words = bm25s.tokenize(list(passages), show_progress=False)
    if not any(len(ids) for ids in words.ids):
        raise InvalidRequest(f"{corpus} holds {len(passages)} texts without a word to search for")
    index = bm25s.BM25()
    index.index(words, show_progress=False)

    def search(query: str, depth: int) -> list[tuple[int, float]]:
        asked = bm25s.tokenize([query], show_progress=False)
        places, scores = index.retrieve(asked, k=depth, show_progress=False)
        pairs = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        # Passages without a word of the query follow with a score of 0, in no order.
        return [(place, score) for place, score in pairs if score > 0.0]

    return search


def _texts(path: Path) -> Iterator[str]:
    """Yield the distinct texts of a file, in its order. Raises `InvalidRequest`."""
    seen: set[str] = set()
    for number, row in read_rows(path):
        text = _text(row, f"{path}:{number}")
        if text.strip() and text not in seen:
            seen.add(text)
            yield text
    if not seen:
        raise InvalidRequest(
            f'{path} holds no text; expected one a line, or JSON lines with "text"'
        )


def _text(row: Row, place: str) -> str:
    text = row.get("text", row.get("query"))
    if not isinstance(text, str):
        raise InvalidRequest(f'{place} has the keys {sorted(row)}; expected a string as "text"')
    return f"{row.get('title') or ''} {text}".strip()
