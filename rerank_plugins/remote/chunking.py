"""What one call may hold: candidates are dealt to as few calls as the provider's caps allow."""

import unicodedata
from collections.abc import Sequence

from .providers import Caps

# Without the provider's tokenizer a token is taken to be two bytes of UTF-8: English has about
# four a token, Chinese about two, so that estimates err towards smaller calls.
_BYTES_PER_TOKEN = 2


def split(query: str, texts: Sequence[str], caps: Caps) -> list[list[int]]:
    """Deal the places of `texts` to calls, in order, none over a cap; a text alone always fits.

    >>> split("q", ["a", "b", "c"], Caps(documents=2))
    [[0, 1], [2]]
    """
    calls: list[list[int]] = []
    size = tokens = 0
    asked = _size(query)
    for place, text in enumerate(texts):
        own = _size(text)
        own_size = own + asked + caps.overhead_bytes
        own_tokens = (own + asked) // _BYTES_PER_TOKEN + 1
        full = (
            not calls
            or _over(len(calls[-1]) + 1, caps.documents)
            or _over(size + own_size, caps.text_bytes)
            or _over(tokens + own_tokens, caps.tokens)
        )
        if full:
            calls.append([])
            size = tokens = 0
        calls[-1].append(place)
        size += own_size
        tokens += own_tokens
    return calls


def deal(places: Sequence[int], most: int) -> list[list[int]]:
    """Deal a call that was too big for its destination to calls of at most `most`, in order.

    >>> deal([4, 5, 6], 2)
    [[4, 5], [6]]
    """
    return [list(places[start : start + most]) for start in range(0, len(places), most)]


def is_blank(text: str) -> bool:
    r"""Tell whether a text shows nothing: providers refuse a whole call for one such document.

    >>> is_blank(" \u200b\n"), is_blank("a")
    (True, False)
    """
    return all(char.isspace() or unicodedata.category(char) in {"Cf", "Cc"} for char in text)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _over(value: int, cap: int | None) -> bool:
    return cap is not None and value > cap
