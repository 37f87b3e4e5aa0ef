"""Searches sentences.txt through an embeddings endpoint, and fails where the best match is not the expected one.

    python rank.py URL [--unix-socket PATH] [--model NAME]

queries.json names the expected sentence by its line number in sentences.txt, from 1. Needs numpy only.
"""

import argparse
import json
import sys
from pathlib import Path

import endpoint

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Asks, prints the best match of each query, and tells by the exit status whether all are right."""
    arguments = argparse.ArgumentParser(description="Rank sentences through an embeddings endpoint")
    endpoint.add_arguments(arguments)
    given = arguments.parse_args()
    sentences = (HERE / "sentences.txt").read_text("utf-8").splitlines()
    queries = json.loads((HERE / "queries.json").read_text("utf-8"))
    try:
        sought = endpoint.unit(endpoint.embed(given, [entry["query"] for entry in queries]))
        cosines = sought @ endpoint.unit(endpoint.embed(given, sentences)).T
    except endpoint.EndpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = 0
    for entry, row in zip(queries, cosines, strict=True):
        second, best = row.argsort()[-2:]
        right = best + 1 == entry["best"]
        wrong += not right
        verdict = "right" if right else f"WRONG, expected line {entry['best']}"
        print(f"{entry['query']}\n  {row[best]:.3f} (next {row[second]:.3f})  {sentences[best]}  [{verdict}]")
    print(f"{len(queries) - wrong} of {len(queries)} right")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
