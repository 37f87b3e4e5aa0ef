"""Holds an endpoint's embeddings against the original model's, and fails where one differs.

    python agree.py FOLDER URL [--unix-socket PATH] [--model NAME]

FOLDER is the package's model folder. Prints a cosine for each of ten sentences. Needs numpy only.
"""

import argparse
import sys
from pathlib import Path

import endpoint
from original import Original
from reference import Reference

LEAST_COSINE = 0.999

SENTENCES = [
    "Water boils at a lower temperature on high mountains.",
    "The cat sat on the mat.",
    "How do I reset the password of my account?",
    "def add(a, b): return a + b  # the sum of two numbers",
    "GPUs multiply matrices; CPUs, mostly, wait for memory.",
    "Crème brûlée, naïve façades and a coöperative Ångström.",
    "3.14159 is close to π, and 22/7 isn't far off (0.04%).",
    "hippopotomonstrosesquippedaliophobia",
    "東京 is the capital of 日本.",
    "When the ships came back in the autumn, loaded with salt and dried fish, the whole town went down to the "
    "harbour, the baker still in his apron, the children in front, and nobody asked what the journey had cost "
    "until the last barrel had been carried up to the storehouse behind the church and the sails were folded.",
]


def main() -> int:
    """Compares, prints, and tells by the exit status whether everything agrees."""
    arguments = argparse.ArgumentParser(description="Compare an endpoint's MiniLM embeddings with the original's")
    arguments.add_argument("folder", type=Path, help="the package's model folder")
    endpoint.add_arguments(arguments)
    given = arguments.parse_args()
    reference = Reference(Original(given.folder))
    try:
        theirs = endpoint.unit(endpoint.embed(given, SENTENCES))
    except endpoint.EndpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cosines = [float(row @ endpoint.unit(reference.embed(text))) for row, text in zip(theirs, SENTENCES, strict=True)]
    for cosine, text in zip(cosines, SENTENCES):
        print(f"{cosine:.6f}  {text[:60]}")
    lowest = min(cosines)
    print(f"lowest {lowest:.6f}, at least {LEAST_COSINE} is needed")
    return 0 if lowest > LEAST_COSINE else 1


if __name__ == "__main__":
    sys.exit(main())
