"""A tiny judged collection in each layout that people have."""

import json
from pathlib import Path

QUERIES = {"q1": "cats sleep", "q2": "dogs bark", "q3": "never judged"}
DOCUMENTS = {
    "d1": ("Birds", "fly south"),
    "d2": ("Cats", "sleep a lot"),
    "d3": ("Dogs", "bark at strangers"),
}
# BM25 has the right passage second in both judged queries.
RUN = {"q1": ["d1", "d2", "d3"], "q2": ["d1", "d3", "d2"], "q3": ["d1"]}
QRELS = {"q1": {"d2": 1, "d1": 0}, "q2": {"d3": 2}}


def text(docid: str) -> str:
    """Give what the model reads of a document."""
    return " ".join(DOCUMENTS[docid])


def beir_folder(folder: Path) -> Path:
    """Write a BEIR folder with a TREC run."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "candidates").mkdir()
    rows = [{"_id": d, "title": t, "text": b} for d, (t, b) in DOCUMENTS.items()]
    _json_lines(folder / "corpus.jsonl", rows)
    _json_lines(folder / "queries.jsonl", [{"_id": q, "text": t} for q, t in QUERIES.items()])
    judged = [f"{q}\t{d}\t{r}\n" for q, ds in QRELS.items() for d, r in ds.items()]
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8"
    )
    lines = [
        f"{q} Q0 {d} {rank} {10 - rank} bm25\n"
        for q, ranked in RUN.items()
        for rank, d in enumerate(ranked, start=1)
    ]
    (folder / "candidates" / "bm25.trec").write_text("".join(lines), encoding="utf-8")
    return folder


def rerank_folder(folder: Path) -> Path:
    """Write a folder of rerank lines, judgements inside them."""
    (folder / "rerank").mkdir(parents=True)
    rows = [
        {
            "qid": q,
            "query": QUERIES[q],
            "candidates": [
                {
                    "docid": d,
                    "text": text(d),
                    "rank": rank,
                    "score": 10.0 - rank,
                    "rel": QRELS.get(q, {}).get(d),
                }
                for rank, d in enumerate(ranked, start=1)
            ],
        }
        for q, ranked in RUN.items()
    ]
    _json_lines(folder / "rerank" / "bm25.jsonl", rows)
    return folder


def _json_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
