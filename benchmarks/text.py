"""Real English text that every Python ships: its language reference, cut to chosen lengths."""

import math
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Tokenizer

QUERY = "how does python decide which method is called when several base classes define it"
TOKENIZER = Path(__file__).parent.parent / "rerank_plugins/models/embedded/tokenizer.json"


@dataclass(frozen=True, slots=True)
class Workload:
    """Passages of one request; their lengths count in tokens of BERT's vocabulary."""

    name: str
    query: str
    passages: tuple[str, ...]


@cache
def workload(name: str, draw: int = 0) -> Workload:
    """Make a workload from its name: skewed-100, uniform256-30, uniform512-10.

    Skewed lengths are log-normal (median 120 tokens a pair, at most 512), drawn with a fixed seed,
    another one for each `draw`.
    """
    kind, count = name.split("-")
    source = random.Random(17 + draw)
    if kind == "skewed":
        lengths = [
            min(512, max(24, round(120 * math.exp(source.gauss(0.0, 0.62)))))
            for _ in range(int(count))
        ]
    else:
        lengths = [int(kind.removeprefix("uniform"))] * int(count)
    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    query_tokens = len(tokenizer.encode(QUERY, add_special_tokens=False).ids)
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    passages = []
    for length in lengths:
        # Pairs carry the query and three special tokens besides.
        size = length - query_tokens - 3
        start = source.randrange(len(offsets) - size)
        passages.append(text[offsets[start][0] : offsets[start + size - 1][1]])
    return Workload(name, QUERY, tuple(passages))
