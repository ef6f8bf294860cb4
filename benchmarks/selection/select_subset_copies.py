"""Finding rows that repeat others: time, memory and what is missed, beside datasketch.

    python -m benchmarks select_subset_copies [--texts 100000] [--vectors 1000000]

Texts are sentences of invented words, one in ten a copy with two words of forty changed, which
leaves some of them below the threshold. The peer is datasketch (MinHash and LSH of the same
shingles, permutations and threshold), where it is installed; both run in this process, one after
the other. Vectors are 384 wide around 2,000 topics, one in ten a near-copy; of the rest half are
then chosen by `prototypes`.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from methods.select_subset.algorithms.dispatch import choose
from methods.select_subset.algorithms.problem import Problem
from methods.select_subset.duplicates.pairs import near_rows, near_vectors
from methods.select_subset.duplicates.text_sketches import PERMUTATIONS, SHINGLE, plain, sketches
from methods.select_subset.schema.methods import PrototypesParams
from tests.toys import reporting

_WORDS, _CHANGED = 40, 2
_LEAST = 0.8


def texts(count: int, seed: int = 0) -> list[str]:
    """Sentences, of which the last tenth are copies of the first with words changed."""
    rng = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    lexicon = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(20_000)])
    own = count - count // 10
    words = lexicon[rng.integers(len(lexicon), size=(own, _WORDS))]
    copies = words[: count - own].copy()
    for row in copies:
        row[rng.integers(0, _WORDS, _CHANGED)] = rng.choice(lexicon, _CHANGED)
    return [" ".join(row) for row in np.concatenate([words, copies])]


def ours(found: list[str]) -> set[tuple[int, int]]:
    """Near pairs as the job finds them."""
    a, b, _ = near_rows(
        sketches([plain(t) for t in found]), np.zeros(len(found), np.uint64), _LEAST, 3
    )
    return set(zip(a.tolist(), b.tolist(), strict=True))


def theirs(found: list[str]) -> set[tuple[int, int]]:
    """The same by datasketch."""
    datasketch = importlib.import_module("datasketch")
    lsh = datasketch.MinHashLSH(threshold=_LEAST, num_perm=PERMUTATIONS)
    pairs = set()
    shingles = (
        [t[at : at + SHINGLE].encode() for at in range(max(1, len(t) - SHINGLE + 1))]
        for t in map(plain, found)
    )
    kept = []
    for row, one in enumerate(datasketch.MinHash.generator(shingles, num_perm=PERMUTATIONS)):
        pairs |= {(other, row) for other in lsh.query(one) if kept[other].jaccard(one) >= _LEAST}
        lsh.insert(row, one)
        kept.append(one)
    return pairs


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def of_texts(count: int) -> list[dict[str, Any]]:
    """Both on the same texts."""
    given = texts(count)
    true = {(row - (count - count // 10), row) for row in range(count - count // 10, count)}
    rows = []
    seconds, found = timed(lambda: ours(given))
    rows.append({"case": f"{count:,} texts", "by": "datassay", "CPU s": seconds})
    rows[-1]["found"] = len(found & true) / len(true)
    if importlib.util.find_spec("datasketch"):
        peer, others = timed(lambda: theirs(given))
        rows.append({"case": f"{count:,} texts", "by": "datasketch", "CPU s": peer})
        rows[-1]["found"] = len(others & true) / len(true)
        print(f"datasketch takes {peer / seconds:.1f} times as long")
    return rows


def of_vectors(count: int) -> list[dict[str, Any]]:
    """Near-copies of embeddings, and a choice of half of the rest."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(2000, 384)).astype(np.float32)
    x = topics[rng.integers(2000, size=count)]
    for start in range(0, count, 100_000):
        part = x[start : start + 100_000]
        part += 0.8 * rng.normal(size=part.shape).astype(np.float32)
    copies = count // 10
    source = rng.choice(count - copies, copies, replace=False)
    x[count - copies :] = x[source] + 0.05 * rng.normal(size=(copies, 384)).astype(np.float32)
    seconds, (a, b, _) = timed(lambda: near_vectors(x, 0.99, 0))
    true = set(zip(source.tolist(), range(count - copies, count), strict=True))
    found = len(true & set(zip(a.tolist(), b.tolist(), strict=True))) / copies
    rows = [{"case": f"{count:,} x 384", "by": "near copies", "CPU s": seconds, "found": found}]
    left = np.setdiff1d(np.arange(count), b)
    problem = Problem("prototypes", PrototypesParams(), len(left), {"embedding": x[left]}, 0)
    seconds, _ = timed(lambda: choose(problem, len(left) // 2))
    rows.append(
        {"case": f"{len(left):,} x 384", "by": "prototypes", "CPU s": seconds, "found": 1.0}
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    args = parser.parse_args()
    rows = of_texts(args.texts) if args.texts else []
    rows += of_vectors(args.vectors) if args.vectors else []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    keys = ["case", "by", "CPU s", "found"]
    cells = [
        [str(row[k]) if isinstance(row[k], str) else f"{row[k]:.4g}" for k in keys] for row in rows
    ]
    print(reporting.table(keys, cells))
    print(f"peak memory {peak:,} MiB")
    print(reporting.write("select_subset_copies", rows, peak_mib=peak))


if __name__ == "__main__":
    main()
