"""Draw the rooms of the package from its imports: docs/images/rooms.svg.

A room stands above every room that it imports. An arrow means "imports"; an arrow that others
already imply is left out (a > c, where a > b > c). Run it after imports between rooms changed; a
test fails while the picture is out of date.
"""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "rerank_plugins"
PICTURE = DOCS / "images" / "rooms.svg"
# The room with rooms inside it, and those of them that lie a level further down.
OUTER = "scoring"
NESTED = ("onnx.graph", "onnx.session")

# A phone shows 360 units without scaling.
WIDTH = 360
_MARGIN = 8
_BOX = 30
_GAP = 26
_SPACE = 10
_STYLE = """
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #1b1b1b }
rect { fill: #e0f2f1; stroke: #00796b }
rect.outer { fill: none; stroke-dasharray: 4 3 }
path { fill: none; stroke: #607d8b; stroke-width: 1.3; marker-end: url(#head) }
marker path { fill: #607d8b; stroke: none; marker-end: none }
@media (prefers-color-scheme: dark) {
  text { fill: #eeeeee }
  rect { fill: #1f3b39; stroke: #4db6ac }
  path { stroke: #b0bec5 }
  marker path { fill: #b0bec5 }
}
"""

_HEAD = """<defs>
<marker id="head" viewBox="0 0 8 8" refX="7" refY="4"
 markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>"""

Graph = Mapping[str, Collection[str]]


def imports(folder: Path = PACKAGE) -> Iterator[tuple[str, str]]:
    """Yield (module, imported module) for every relative import below `folder`, dotted names."""
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = place[: len(place) - node.level]
                stem = (*base, *(node.module or "").split(".")) if node.module else base
                for alias in node.names:
                    yield ".".join(place).removesuffix(".__init__"), ".".join((*stem, alias.name))


def outer_rooms() -> dict[str, set[str]]:
    """Return which rooms each room at the top of the package imports."""
    named = ((a.split(".")[0], b.split(".")[0]) for a, b in imports())
    found = _graph((a, b) for a, b in named if a != "__init__")
    # The doors and the data that no module imports are rooms as well.
    for path in PACKAGE.iterdir():
        if path.is_dir() and (path / "__init__.py").exists() and any(path.glob("[a-z]*.py")):
            found.setdefault(path.name, set())
    return found


def inner_rooms() -> dict[str, set[str]]:
    """Return which rooms of `scoring` each of its rooms imports; its seam is "Scorer"."""
    return _graph(
        (_inner(a), _inner(b)) for a, b in imports() if a.startswith(OUTER) and b.startswith(OUTER)
    )


def _inner(module: str) -> str:
    name = module.removeprefix(OUTER).removeprefix(".")
    for nested in NESTED:
        if f"{name}.".startswith(f"{nested}."):
            return nested
    room = name.split(".")[0]
    known = (PACKAGE / OUTER / room).is_dir() or (PACKAGE / OUTER / f"{room}.py").is_file()
    return room if room and known else "Scorer"


def _graph(edges: Iterator[tuple[str, str]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for start, end in edges:
        for room in (start, end):
            graph.setdefault(room, set())
        if start != end:
            graph[start].add(end)
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Return every room that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = set(graph[waiting.pop()]) - found
        found |= new
        waiting += new
    return found


def needed(graph: Graph) -> dict[str, set[str]]:
    """Return the arrows that no other arrows imply."""
    return {
        start: {
            end
            for end in ends
            if not any(end in reachable(graph, other) for other in set(ends) - {end})
        }
        for start, ends in graph.items()
    }


def rows(graph: Graph, doors: Collection[str] = ()) -> list[list[str]]:
    """Return the rooms from the lowest row to the highest, each above all that it imports.

    The `doors` stand in the top row. Inside a row a room stands near what it imports. Raises
    `ValueError` where rooms import each other in a circle.
    """
    placed: list[list[str]] = []
    where: dict[str, float] = {}
    left = set(graph) - set(doors)
    while left or set(doors) - set(where):
        row = {room for room in left or doors if set(graph[room]) <= set(where)}
        if not row:
            message = f"these rooms import each other in a circle: {', '.join(sorted(left))}"
            raise ValueError(message)
        means = {
            room: sum(where[end] for end in graph[room]) / max(1, len(graph[room])) for room in row
        }
        placed.append(sorted(row, key=lambda room: (round(means[room], 6), room)))
        where |= {room: (at + 0.5) / len(row) for at, room in enumerate(placed[-1])}
        left -= row
    return placed


def doors(graph: Graph) -> set[str]:
    """Return the rooms that no room imports."""
    return set(graph) - {room for ends in graph.values() for room in ends}


Box = tuple[float, float, float, float]
"""Left, top, width, height."""
Boxes = dict[str, Box]


def _boxes(placed: Sequence[Sequence[str]], heights: Mapping[str, float], left: float) -> Boxes:
    """Lay out rows of boxes, `left` from both sides of the page; y grows downwards from 0."""
    width = WIDTH - 2 * left
    boxes: Boxes = {}
    top = 0.0
    for row in reversed(placed):
        each = (width - _SPACE * (len(row) - 1)) / len(row)
        tallest = max(heights.get(room, _BOX) for room in row)
        # A row of one room does not fill the page, but the room with rooms inside does.
        wide = each if len(row) > 1 or row[0] in heights else width * 0.4
        for place, room in enumerate(row):
            middle = left + place * (each + _SPACE) + each / 2
            boxes[room] = (middle - wide / 2, top, wide, heights.get(room, _BOX))
        top += tallest + _GAP
    return boxes


def _arrow(start: Box, end: Box) -> str:
    """Draw from the lower edge of one box to the upper edge of another."""
    x1, y1 = start[0] + start[2] / 2, start[1] + start[3]
    x2, y2 = end[0] + end[2] / 2, end[1]
    # Towards the room with rooms inside, straight down.
    if end[0] < x1 < end[0] + end[2] and end[2] > start[2]:
        x2 = x1
    return f'<path d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2 - 2:.1f}"/>'


def _arrows(graph: Graph, boxes: Boxes) -> Iterator[str]:
    arrows = needed(graph)
    for start in sorted(arrows):
        for end in sorted(arrows[start]):
            yield _arrow(boxes[start], boxes[end])


def _rooms(boxes: Boxes) -> Iterator[str]:
    for room, (x, y, width, height) in sorted(boxes.items()):
        kind = ' class="outer"' if room == OUTER else ""
        corner, size = f'x="{x:.1f}" y="{y:.1f}"', f'width="{width:.1f}" height="{height:.1f}"'
        yield f'<rect{kind} {corner} {size} rx="5"/>'
        yield f'<text x="{x + width / 2:.1f}" y="{y + 20:.1f}">{room}</text>'


def picture() -> str:
    """Return the SVG."""
    inside, outside = inner_rooms(), outer_rooms()
    inner = _boxes(rows(inside), {}, 2 * _MARGIN)
    heights = {OUTER: _bottom(inner) + _BOX + _MARGIN}
    boxes = _boxes(rows(outside, doors(outside)), heights, _MARGIN)
    shift = boxes[OUTER][1] + _BOX
    inner = {room: (x, y + shift, width, height) for room, (x, y, width, height) in inner.items()}
    height = _bottom(boxes) + 2 * _MARGIN
    lines: Sequence[str] = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-_MARGIN} {WIDTH} {height:.0f}">',
        "<title>The rooms of rerank_plugins; an arrow means imports</title>",
        f"<style>{_STYLE}</style>",
        _HEAD,
        # Arrows first: a long one goes behind the boxes between its ends.
        *_arrows(outside, boxes),
        *_arrows(inside, inner),
        *_rooms(boxes),
        *_rooms(inner),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bottom(boxes: Mapping[str, Box]) -> float:
    return max(top + height for _, top, _, height in boxes.values())


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
