"""Which texts go into which call: as few calls as the provider's caps allow."""

from collections.abc import Sequence

from .providers import Caps

# Without the provider's tokenizer a token counts as two bytes of UTF-8: English has about four
# bytes a token, Chinese about two, so that estimates err towards smaller calls.
_BYTES_PER_TOKEN = 2


def split(query: str, texts: Sequence[str], caps: Caps) -> list[list[int]]:
    """Return the indices of `texts` for each call, in order, within the caps.

    A text that is over a cap by itself gets a call of its own.

    >>> split("q", ["a", "b", "c"], Caps(documents=2))
    [[0, 1], [2]]
    """
    calls: list[list[int]] = []
    size = tokens = 0
    query_size = _size(query)
    for index, text in enumerate(texts):
        pair_size = _size(text) + query_size
        pair_tokens = pair_size // _BYTES_PER_TOKEN + 1
        pair_size += caps.overhead_bytes
        full = (
            not calls
            or _over(len(calls[-1]) + 1, caps.documents)
            or _over(size + pair_size, caps.text_bytes)
            or _over(tokens + pair_tokens, caps.tokens)
        )
        if full:
            calls.append([])
            size = tokens = 0
        calls[-1].append(index)
        size += pair_size
        tokens += pair_tokens
    return calls


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _over(value: int, cap: int | None) -> bool:
    return cap is not None and value > cap
