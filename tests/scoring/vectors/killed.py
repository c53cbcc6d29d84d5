"""A process that puts and gets at random in a shared store until it is killed.

Arguments: folder, log file, seed. The log has a line for each operation, with the texts that it
committed. A line is one short write, which no signal cuts. A wrong vector ends the process.
"""

import sys
from pathlib import Path

import numpy as np

from rerank_plugins.scoring.vectors.memory import VectorMemory
from rerank_plugins.scoring.vectors.shared_rows import SharedRows

SIZE, TEXTS = 64, 4000
BOUND = 64 * 2**20


def vector(number: int) -> np.ndarray:
    """Make the vector of a text."""
    made = np.random.default_rng(number).normal(size=SIZE).astype(np.float32)
    return made / np.linalg.norm(made)


def check(memory: VectorMemory, numbers: list[int]) -> list[bool]:
    """Look texts up; tell which are known, and stop at a wrong vector."""
    found = memory.get(memory.keys([f"text {number}" for number in numbers]))
    for number, known, got in zip(numbers, found.known, found.vectors, strict=True):
        if known and np.abs(got - vector(number)).max() > 0.01:
            raise SystemExit(f"text {number} has the vector of another")
    return found.known.tolist()


def main() -> None:
    """Run operations until killed: half of them put, half of them get."""
    folder, log, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    memory = VectorMemory(SharedRows(folder, BOUND), "model", SIZE)
    random = np.random.default_rng(seed)
    with log.open("a") as file:
        while True:
            numbers = random.integers(0, TEXTS, 4).tolist()
            if random.random() < 0.5:
                keys = memory.keys([f"text {number}" for number in numbers])
                memory.put(keys, np.array([vector(number) for number in numbers]), [0] * 4)
                memory.flush()
                file.write(" ".join(map(str, numbers)) + "\n")
            else:
                check(memory, numbers)
                file.write("-\n")
            file.flush()


if __name__ == "__main__":
    main()
