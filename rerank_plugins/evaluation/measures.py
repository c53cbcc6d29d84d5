"""Measures of a ranking, through ir-measures, query by query."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from types import ModuleType


Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> document id -> relevance, 0 and less meaning not relevant."""

DEFAULT = ("nDCG@10", "RR@10")


def check(names: Sequence[str]) -> tuple[str, ...]:
    """Return the canonical names of measures. Raises `InvalidRequest` for an unknown name."""
    return tuple(str(measure) for measure in _parse(_library(), names))


def per_query(
    orders: Mapping[str, Sequence[str]], qrels: Qrels, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return measure -> query id -> value for the queries that are both ranked and judged.

    `orders` maps query ids to document ids, best first; there are no ties. A
    query without a relevant document counts 0, as trec_eval has it.
    """
    library = _library()
    measures = _parse(library, names)
    judged = [qid for qid in orders if qid in qrels]
    run = [
        library.ScoredDoc(qid, docid, float(-place))
        for qid in judged
        for place, docid in enumerate(orders[qid])
    ]
    judgements = [
        library.Qrel(qid, docid, relevance)
        for qid in judged
        for docid, relevance in qrels[qid].items()
    ]
    values = {str(measure): dict.fromkeys(judged, 0.0) for measure in measures}
    if run and judgements:
        for found in library.iter_calc(measures, judgements, run):
            values[str(found.measure)][found.query_id] = float(found.value)
    return values


def judged_only(
    orders: Mapping[str, Sequence[str]], qrels: Qrels, names: Sequence[str]
) -> dict[str, float]:
    """Return measure -> mean with every unjudged document left out of the orders.

    Empty where no document is judged not relevant: then only relevant documents would remain.
    """
    if not any(value <= 0 for judged in qrels.values() for value in judged.values()):
        return {}
    kept = {
        qid: [docid for docid in ranked if docid in qrels[qid]]
        for qid, ranked in orders.items()
        if qid in qrels
    }
    values = per_query(kept, qrels, names)
    return {
        name: sum(by_query.values()) / len(by_query) if by_query else 0.0
        for name, by_query in values.items()
    }


def _library() -> "ModuleType":
    try:
        import ir_measures
    except ImportError as error:
        raise ImportError(
            "measures need ir-measures, which is not installed; "
            "run: pip install 'rerank-plugins[eval]'"
        ) from error
    return ir_measures


def _parse(library: "ModuleType", names: Sequence[str]) -> list[Any]:
    found = []
    for name in names:
        try:
            found.append(library.parse_measure(name))
        except (NameError, ValueError, SyntaxError) as error:
            raise InvalidRequest(
                f"no measure is called {name[:40]!r}; expected names such as nDCG@10, RR@10, "
                "AP(rel=2)@100, P@5 or R@100"
            ) from error
    return found
