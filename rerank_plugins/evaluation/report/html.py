"""The report as one HTML page without scripts and without requests."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..comparison import Comparison, Difference, System
from ..prior_weight import PriorWeightFit
from ..reliability import PRECISIONS, Reliability
from ..worst_queries import QueryLoss
from . import cells, plots

_ONE_RERANKER = 2  # the first stage is a system too

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2024; margin: 2rem auto; max-width: 76rem;
  padding: 0 1.5rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid #d7dbdf; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #e8eaec;
  vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #889096; font-weight: 600; }
small { color: #60676d; display: block; white-space: nowrap; }
.better { color: #067a46; } .worse { color: #b3261e; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; flex: 1 1 24rem; }
svg { max-width: 100%; height: auto; } figcaption { color: #60676d; font-size: .9em; }
a { color: inherit; } details { margin: .4rem 0; } summary { cursor: pointer; }
details > .plots { margin-top: .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .5rem 1rem; }
dt { color: #60676d; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(comparisons: Sequence[Comparison]) -> str:
    """Write the whole page: the overview first, then a section for each dataset."""
    sections = (part for place, found in enumerate(comparisons) for part in _set(found, place))
    body = "".join([*_overview(comparisons), *sections])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _overview(comparisons: Sequence[Comparison]) -> Iterator[str]:
    measure = comparisons[0].measures[0]
    yield "<h1>Does reranking help, and what does it cost?</h1>"
    yield (
        "<p>Differences are to the first stage, over the same queries: in brackets the 95 % "
        "interval of a paired bootstrap; p from a permutation test, adjusted over all sets and "
        "systems (Holm). Green and red: the interval excludes 0.</p>"
    )
    names = [system.name for system in comparisons[0].systems]
    rows = [
        [
            f'<a href="#{_id(place)}">{_name(found.dataset)}</a>',
            *(_quality(system, measure) for system in found.systems),
        ]
        for place, found in enumerate(comparisons)
    ]
    if len(comparisons) > 1:
        first, *others = cells.overall(comparisons)
        rows.append(
            [
                "<b>mean</b>",
                f"<b>{first:.3f}</b>",
                *(f"<b>{mean:.3f}</b><small>{mean - first:+.3f}</small>" for mean in others),
            ]
        )
    yield _table([measure, *map(_name, names)], rows)
    if len(names) > 1:
        yield '<div class="plots">'
        yield _figure(
            plots.pareto(comparisons), "Quality against tail latency: up and left is better"
        )
        yield _figure(plots.forest(comparisons), "Gain or loss by dataset")
        yield "</div>"


def _id(place: int) -> str:
    return f"set-{place + 1}"


def _set(found: Comparison, place: int) -> Iterator[str]:
    yield f'<h2 id="{_id(place)}">{_name(found.dataset)}</h2>'
    yield f"<p>{found.queries:,} queries, {found.candidates:,} candidates.</p>"
    rows = [
        [
            _name(system.name),
            *(_quality(system, name) for name in found.measures),
            *cells.cost(system),
        ]
        for system in found.systems
    ]
    yield _table(["", *map(_name, found.measures), *cells.COST], rows)
    yield '<div class="plots">'
    yield _figure(plots.recall(found), _recommendation(found))
    if len(found.systems) > 1:
        yield _figure(plots.depth(found), "What reranking only the first candidates gives")
    yield "</div>"
    rows = [[_name(name), *row] for name, *row in cells.by_size(found)]
    if rows:
        yield "<h3>Latency by size of the request</h3>"
        yield _table(cells.SIZE, rows)
    for system in found.systems[1:]:
        yield from _learned(found, system)
        yield from _worst(found, system)


def _quality(system: System, measure: str) -> str:
    cell = cells.quality(system, measure, judged="<small>judged only {}</small>")
    difference = system.differences.get(measure)
    return cell if difference is None else cell + _difference(difference)


def _difference(found: Difference) -> str:
    gap = found.interval
    kind = "better" if gap.low > 0.0 else "worse" if gap.high < 0.0 else ""
    return (
        f'<small class="{kind}">{gap}</small>'
        f"<small>{found.wins} won, {found.ties} tied, {found.losses} lost, "
        f"p {found.p_adjusted:.4f}</small>"
    )


def _recommendation(found: Comparison) -> str:
    return (
        f"First-stage recall by depth: {found.recall.recommended} candidates reach 95 % of what "
        "the deepest finds"
    )


def _learned(found: Comparison, system: System) -> Iterator[str]:
    """Show what the labels say about probabilities and about the weight of the first stage."""
    if not system.reliability and system.fusion is None:
        return
    # With several rerankers the page is long: the details stay closed.
    opened = " open" if len(found.systems) == _ONE_RERANKER else ""
    yield f"<details{opened}><summary>What the labels say about {_name(system.name)}</summary>"
    yield '<div class="plots">'
    if system.reliability:
        caption = "Probabilities against what was relevant, each half judged by the other's fit"
        yield _figure(plots.reliability(system, found.dataset), caption)
    if system.fusion is not None:
        salt = f"{system.name} {found.dataset}"
        plot = plots.weights(system.fusion, found.measures[0], salt)
        yield _figure(plot, _weight(system.fusion))
    yield "</div>"
    if system.reliability:
        rows = [_fit(fitted) for fitted in system.reliability]
        cuts = [f"cut for precision {target:g}" for target in PRECISIONS]
        yield _table(["", "pairs", "ECE", "Brier", "calibration", *cuts], rows)
    yield "</details>"


def _weight(fit: PriorWeightFit) -> str:
    return (
        f"prior_weight = {fit.prior_weight:g} fits best; over the model alone it gives "
        f"{fit.crosswise} on queries it was not fitted to"
    )


def _fit(found: Reliability) -> list[str]:
    parameters = found.parameters
    shown = "" if parameters is None else f"[{parameters[0]:.4f}, {parameters[1]:.4f}]"
    cuts = [f"{found.cuts[target]:.3f}" if target in found.cuts else "" for target in PRECISIONS]
    errors = (f"{found.ece:.3f}", f"{found.brier:.3f}")
    return [_name(found.method), f"{found.pairs:,}", *errors, shown, *cuts]


def _worst(found: Comparison, system: System) -> Iterator[str]:
    if not system.worst:
        return
    yield f"<h3>What {_name(system.name)} made worst</h3>"
    for loss in system.worst:
        change = f"{found.measures[0]} {loss.before:.3f} to {loss.after:.3f}"
        yield f"<details><summary>{_name(loss.query)} ({change})</summary><dl>"
        yield "".join(f"<dt>{name}</dt><dd>{_name(text)}</dd>" for name, text in _facts(loss))
        yield "</dl></details>"


def _facts(loss: QueryLoss) -> Iterator[tuple[str, str]]:
    yield "query id", loss.qid
    yield "on top before", loss.top_before
    yield "on top after", loss.top_after
    if loss.relevant is not None:
        yield "best relevant", loss.relevant
        yield "its rank", f"{loss.relevant_before} before, {loss.relevant_after} after"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out cells that are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _name(text: str) -> str:
    return escape(" ".join(text.split()))
