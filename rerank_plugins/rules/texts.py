"""Which texts have nothing to read."""

import unicodedata


def is_blank(text: str) -> bool:
    r"""True if a text has nothing but spaces, control and invisible formatting characters.

    Providers refuse a whole call for one such document.

    >>> is_blank(" \u200b\n"), is_blank("a")
    (True, False)
    """
    return all(char.isspace() or unicodedata.category(char) in {"Cf", "Cc"} for char in text)
