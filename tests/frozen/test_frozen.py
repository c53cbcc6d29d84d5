"""What requests through every mode gave before a refactoring, they give after it.

`python -m tests.frozen.requests tests/frozen/frozen.json` records anew.
"""

import json
import math
from collections.abc import Iterator

import pytest

from .material import HERE
from .requests import collect

FROZEN = json.loads((HERE / "frozen.json").read_text(encoding="utf-8"))
# Other CPUs round otherwise.
NEAR = 1e-4


@pytest.fixture(scope="module")
def now():
    """Ask everything again."""
    return json.loads(json.dumps(collect()))


def differences(before, after, where="") -> Iterator[str]:
    """Name the places where two results differ: numbers by more than rounding, others at all."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key), after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where}[{place}]")
    elif not same(before, after):
        yield f"{where}: {before!r} became {after!r}"


def same(before, after) -> bool:
    """Tell whether two values are the same, floats but for rounding."""
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, abs_tol=NEAR, rel_tol=NEAR)
    return before == after


def test_the_same_requests_are_asked(now):
    """No request was lost and none came."""
    assert set(now) == set(FROZEN)


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_request_gives_what_it_gave(now, name):
    """Orders, codes and counts are the same, and numbers but for rounding."""
    found = list(differences(FROZEN[name], now.get(name, {})))
    assert not found, f"{name}:\n" + "\n".join(found[:20])
