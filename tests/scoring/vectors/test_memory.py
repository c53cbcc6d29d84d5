"""The memory of vectors: bounded, exact within its precision, never a wrong vector."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import ConfigError
from rerank_plugins.scoring.vectors.memory import LocalRows, VectorMemory, row_type
from rerank_plugins.scoring.vectors.shared_rows import SharedRows

SIZE = 32
ROW = row_type(SIZE, "int8").itemsize
TEXTS = [f"passage {number}" for number in range(60)]


def vectors(texts, size=SIZE):
    """Make the unit vector of each text."""
    made = [np.random.default_rng(abs(hash(text)) % 2**32).normal(size=size) for text in texts]
    return np.array([one / np.linalg.norm(one) for one in made], np.float32)


def local(rows=1000):
    """Make a store in memory."""
    return LocalRows(rows * (ROW + 208), ROW)


@pytest.fixture(params=["local", "shared"])
def store(request, tmp_path):
    """Make each kind of store."""
    made = local() if request.param == "local" else SharedRows(tmp_path / "store", 2**20)
    yield made
    made.close()


def test_what_was_put_is_got(store):
    """Vectors and counts come back, as `put` said they would; what is missing is zero."""
    memory = VectorMemory(store, "model", SIZE)
    keys = memory.keys(TEXTS)
    promised = memory.put(keys[:40], vectors(TEXTS[:40]), range(40))
    memory.flush()
    found = memory.get(keys)
    assert found.known.tolist() == [True] * 40 + [False] * 20
    np.testing.assert_array_equal(found.vectors[:40], promised)
    np.testing.assert_allclose(found.vectors[:40], vectors(TEXTS[:40]), atol=0.01)
    assert found.truncated.tolist() == [*range(40), *[0] * 20]
    assert not found.vectors[40:].any()


def test_another_model_precision_or_text_finds_nothing(store):
    """The key holds all of them."""
    memory = VectorMemory(store, "model", SIZE)
    memory.put(memory.keys(TEXTS), vectors(TEXTS), [0] * 60)
    for other in (
        VectorMemory(store, "another", SIZE),
        VectorMemory(store, "model", SIZE, precision="fp16"),
    ):
        assert not other.get(other.keys(TEXTS)).known.any()
    assert not memory.get(memory.keys([text + " " for text in TEXTS])).known.any()


def test_any_text_has_a_key():
    """Lone surrogates too."""
    memory = VectorMemory(local(), "model", SIZE)
    assert len(set(memory.keys(["\ud800", "", "a\0", "a"]))) == 4


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=SIZE, max_size=SIZE))
def test_vectors_of_any_size_are_rounded_relative_to_it(values):
    """Without unit length too (for dot products): the error is a share of the largest number."""
    vector = np.array([values], np.float32)
    for precision, share in (("int8", 1 / 250), ("fp16", 1 / 2000)):
        memory = VectorMemory(
            LocalRows(2**16, row_type(SIZE, precision).itemsize),
            "model",
            SIZE,
            precision=precision,
            unit=False,
        )
        keys = memory.keys(["text"])
        memory.put(keys, vector, [0])
        error = np.abs(memory.get(keys).vectors - vector).max()
        assert error <= share * np.abs(vector).max() + 1e-30


def test_a_row_that_is_damaged_or_misplaced_is_no_row():
    """Every single bit counts, and so does the place."""
    store = local()
    memory = VectorMemory(store, "model", SIZE)
    keys = memory.keys(TEXTS[:2])
    memory.put(keys, vectors(TEXTS[:2]), [0, 0])
    first, second = store._places[keys[0]], store._places[keys[1]]
    for place in range(ROW):
        store._rows[first, place] ^= 1
        assert memory.get(keys).known.tolist() == [False, True]
        store._rows[first, place] ^= 1
    store._rows[first] = store._rows[second]
    assert memory.get(keys).known.tolist() == [False, True]


def test_local_rows_are_bounded_and_those_in_use_stay():
    """Of 100 rows those that are asked for again and again outlive a thousand others."""
    store = local(100)
    for number in range(1000):
        store.put({b"%d" % number: bytes(ROW)})
        assert store.get([b"0", b"1"]) == [bytes(ROW), bytes(ROW) if number else None]
    assert len(store._places) == 100
    with pytest.raises(ConfigError, match="hold no vector"):
        LocalRows(100, ROW)


def test_threads_share_a_store(store):
    """Eight threads put and get; none sees another's vector under its key."""
    memory = VectorMemory(store, "model", SIZE)
    expected = {text: vectors([text])[0] for text in TEXTS}
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(30):
            texts = [TEXTS[i] for i in random.integers(0, 60, 8)]
            keys = memory.keys(texts)
            memory.put(keys, np.array([expected[text] for text in texts]), [0] * 8)
            found = memory.get(keys)
            for text, known, vector in zip(texts, found.known, found.vectors, strict=True):
                if not known or np.abs(vector - expected[text]).max() > 0.01:
                    wrong.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_shared_rows_survive_and_are_found_by_others(tmp_path):
    """A second store on the same folder, open at the same time or later, finds them."""
    first, second = SharedRows(tmp_path, 2**20), SharedRows(tmp_path, 2**20)
    rows = {b"%016d" % number: bytes([number]) * 50 for number in range(200)}
    first.put(rows)
    assert first.get(list(rows)) == list(rows.values())
    first.flush()
    assert second.get(list(rows)) == list(rows.values())
    first.close()
    second.put({b"x": b"y"})
    second.close()
    third = SharedRows(tmp_path, 2**20)
    assert third.get([*rows, b"x"]) == [*rows.values(), b"y"]
    third.close()


def test_shared_rows_are_written_without_being_asked(tmp_path):
    """In the background, a moment later."""
    first, second = SharedRows(tmp_path, 2**20), SharedRows(tmp_path, 2**20)
    first.put({b"key": b"row"})
    until = time.monotonic() + 10.0
    while second.get([b"key"]) == [None] and time.monotonic() < until:
        time.sleep(0.02)
    assert second.get([b"key"]) == [b"row"]
    first.close()
    second.close()
    first.close()


def test_shared_rows_stay_within_their_bound(tmp_path):
    """Ten times as much as fits: the file and its log stay below, and the newest are there."""
    bound = 2**20
    store = SharedRows(tmp_path, bound)
    for start in range(0, 25_000, 500):
        store.put({b"%016d" % number: bytes(400) for number in range(start, start + 500)})
        store.flush()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= bound + 2**16
    assert store.get([b"%016d" % 24_999]) == [bytes(400)]
    assert store.get([b"%016d" % 0]) == [None]
    store.close()


def test_a_damaged_row_is_replaced_when_the_passage_comes_again(tmp_path):
    """It is missing once, not for ever."""
    memory = VectorMemory(SharedRows(tmp_path, 2**20), "model", SIZE)
    keys = memory.keys(TEXTS)
    memory.put(keys, vectors(TEXTS), [0] * 60)
    memory.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "vectors.sqlite3")) as connection:
        connection.execute("UPDATE vectors SET row = zeroblob(48) WHERE id = 7")
        connection.commit()
    memory = VectorMemory(SharedRows(tmp_path, 2**20), "model", SIZE)
    assert memory.get(keys).known.sum() == 59
    memory.put(keys, vectors(TEXTS), [0] * 60)
    memory.flush()
    assert memory.get(keys).known.all()
    memory.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 400, b"SQLite format 3\0" * 300])
def test_a_foreign_file_is_refused(tmp_path, content):
    """It is neither read nor overwritten."""
    path = tmp_path / "vectors.sqlite3"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be used"):
        SharedRows(tmp_path, 2**20)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path):
    """A SQLite file with other tables, or of another version."""
    with contextlib.closing(sqlite3.connect(tmp_path / "vectors.sqlite3")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(ConfigError, match="another program or version"):
        SharedRows(tmp_path, 2**20)


def test_a_damaged_file_never_gives_a_wrong_vector(tmp_path):
    """Bytes are overwritten at random: it is refused at opening, or what is found is right."""
    random = np.random.default_rng(5)
    refused = found = 0
    for turn in range(40):
        folder = tmp_path / str(turn)
        memory = VectorMemory(SharedRows(folder, 2**20), "model", SIZE)
        keys = memory.keys(TEXTS)
        memory.put(keys, vectors(TEXTS), [0] * 60)
        memory.close()
        path = folder / "vectors.sqlite3"
        data = bytearray(path.read_bytes())
        start = int(random.integers(0, len(data) - 64))
        data[start : start + 64] = random.bytes(64)
        if turn % 4 == 0:
            data = data[: int(random.integers(1, len(data)))]
        path.write_bytes(data)
        try:
            store = SharedRows(folder, 2**20)
        except ConfigError:
            refused += 1
            continue
        again = VectorMemory(store, "model", SIZE).get(keys)
        np.testing.assert_allclose(
            again.vectors[again.known], vectors(TEXTS)[again.known], atol=0.01
        )
        found += int(again.known.sum())
        store.close()
    assert refused
    assert found


def test_a_disk_that_fails_costs_vectors_and_no_request(tmp_path, caplog):
    """With its file gone from under it a store finds nothing more, and says so once."""
    store = SharedRows(tmp_path, 2**20)
    store._reader.close()
    assert store.get([b"key"]) == [None]
    assert store.get([b"key"]) == [None]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1
    store._writer.close()
    store.put({b"key": b"row"})
    store.flush()
    store.close()


def test_a_fork_does_not_use_the_store(tmp_path):
    """A forked process is told to make its own, and closing there does nothing."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from rerank_plugins.errors import ClosedError\n"
        "from rerank_plugins.scoring.vectors.shared_rows import SharedRows\n"
        "store = SharedRows(Path(sys.argv[1]), 2**20)\n"
        "store.put({b'key': b'row'})\n"
        "store.flush()\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        store.get([b'key'])\n"
        "    except ClosedError:\n"
        "        store.close()\n"
        "        os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
        "assert store.get([b'key']) == [b'row']\n"
        "store.close()\n"
    )
    if sys.platform == "win32":
        pytest.skip("Windows does not fork")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True)
