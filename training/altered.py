"""Near misses: copies of right passages that are wrong in one number, name or negation."""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import TYPE_CHECKING

from .sources import content_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STATEMENTS = 5_000
HELD_OUT_PERCENT = 2
_NUMBER = re.compile(r"\b\d[\d,]*(?:\.\d+)?\b")
_NAME = re.compile(r"(?<=\s)[A-Z][a-z]{2,}(?:\s[A-Z][a-z]{2,})*\b")
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|does|do|did|will|would|should|must)\b")
_NEGATIVE = re.compile(r"\b(no|not|never|none|nor|neither|without|lacks?|cannot|unlike)\b|n't\b")
_SHORT = {"is": "isn't", "are": "aren't", "was": "wasn't", "were": "weren't", "can": "cannot"}


def other_number(number: str, rng: random.Random) -> str:
    """Return a number of the same form and another value: near for years, else one digit changed.

    >>> other_number("7", random.Random(0)) != "7"
    True
    """
    if re.fullmatch(r"1[5-9]\d\d|20\d\d", number):
        return str(int(number) + rng.choice((-1, 1)) * rng.randint(1, 40))
    places = [i for i, letter in enumerate(number) if letter.isdigit()]
    place = rng.choice(places)
    digits = [digit for digit in "123456789" if digit != number[place]]
    return number[:place] + rng.choice(digits) + number[place + 1 :]


def alter(query: str, passage: str, names: Sequence[str], rng: random.Random) -> str | None:
    """Return the passage with a number or name that the query asks about changed; None where there is none."""
    numbers = [n for n in _NUMBER.findall(query) if re.search(rf"\b{re.escape(n)}\b", passage)]
    shared = [n for n in _NAME.findall(query) if n in passage]
    if numbers and (not shared or rng.random() < 0.5):
        old = rng.choice(numbers)
        return re.sub(rf"\b{re.escape(old)}\b", other_number(old, rng), passage)
    if shared and names:
        old, new = rng.choice(shared), rng.choice(names)
        return passage.replace(old, new) if new not in passage else None
    return None


def negated(sentence: str, rng: random.Random) -> str:
    """Return the sentence with its first auxiliary negated.

    >>> negated("Bats are blind.", random.Random(1)) in {"Bats are not blind.", "Bats aren't blind.", "Bats are never blind."}
    True
    """
    found = _AUXILIARY.search(sentence)
    if found is None:
        return sentence
    word = found[0]
    forms = (f"{word} not", f"{word} not", f"{word} never", _SHORT.get(word, f"{word} not"))
    return sentence[: found.start()] + rng.choice(forms) + sentence[found.end() :]


def _asked(sentence: str, rng: random.Random) -> str:
    """Return a statement as somebody searching would put it."""
    words = sentence.rstrip(".").strip()
    draw = rng.random()
    if draw < 0.5:
        return content_words(words)
    return words if draw < 0.75 else words.lower()


def _statements(passages: Sequence[str], rng: random.Random) -> list[tuple[str, str, str]]:
    """Return (query, passage that says so, passage that denies it); half of the queries are negative."""
    made = []
    for passage in rng.sample(passages, len(passages)):
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", passage)
        plain = [
            i
            for i, sentence in enumerate(sentences)
            if 40 <= len(sentence) <= 160
            and len(_AUXILIARY.findall(sentence)) == 1
            and not _NEGATIVE.search(sentence)
        ]
        if not plain or "def " in passage or "    " in passage:
            continue
        i = rng.choice(plain)
        yes, no, asked_no = sentences[i], negated(sentences[i], rng), negated(sentences[i], rng)
        # Half stand alone, half in their surroundings: a detail must count in either.
        tail = " ".join(["", *sentences[i + 1 : i + 3]]) if rng.random() < 0.5 else ""
        if rng.random() < 0.5:
            made.append((_asked(asked_no, rng), no + tail, yes + tail))
        else:
            made.append((_asked(yes, rng), yes + tail, no + tail))
        if len(made) == STATEMENTS:
            break
    return made


def extend(folder: Path, *, seed: int = 0) -> dict[str, int]:
    """Add statements and altered passages to what `prepare` wrote; return how many of each.

    Altered passages stand last in passages.jsonl, marked, so that mining can leave them out; a
    query's row names its own under `altered`. Does nothing where that has been done.
    """
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    texts = [json.loads(line) for line in (folder / "passages.jsonl").open(encoding="utf-8")]
    if any("altered" in row for row in rows):
        return {}
    rng = random.Random(seed)
    names = sorted({name for row in rows for name in _NAME.findall(row["query"])})
    near: list[str | None] = [
        None
        if row["source"] in {"code", "docs"}
        else alter(row["query"], texts[row["positive"]]["text"], names, rng)
        for row in rows
    ]
    prose = {row["positive"] for row in rows if row["source"] in {"ares", "squad", "nq", "medquad"}}
    statements = _statements([texts[i]["text"] for i in sorted(prose)], rng)
    for query, right, wrong in statements:
        fold = int(hashlib.sha256(query.encode()).hexdigest(), 16) % 100
        held_out = fold < HELD_OUT_PERCENT
        row = {"query": query, "positive": len(texts), "source": "polarity", "held_out": held_out}
        rows.append(row)
        texts.append({"text": right})
        near.append(wrong)
    for row, text in zip(rows, near, strict=True):
        row["altered"] = -1 if text is None else len(texts)
        if text is not None:
            texts.append({"text": text, "altered": True})
    for name, lines in (("queries", rows), ("passages", texts)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return {"statements": len(statements), "altered": sum(text is not None for text in near)}
