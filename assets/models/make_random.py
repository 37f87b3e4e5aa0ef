"""Writes a model of random weights, as large as one that people use, for measurements.

    python make_random.py OUT.gguf [--width 768] [--layers 12] [--context 4096]

It has the toy chat model's vocabulary and template, so that it takes the same prompts. What it says is noise, of whole
words and letters alone, and it never ends by itself: the rows of all other tokens are zero, and some token always
scores above that. Weights are in Q8_0. The defaults make 114 million parameters. Needs numpy and gguf.
"""

import argparse
import re
from pathlib import Path

import gguf
import numpy as np

from toy import FILE

HEAD = 64  # width of an attention head
WORD = re.compile("\u0120?[A-Za-z]+")  # with the space before it


def main() -> None:
    """Copies the toy model's metadata, with other sizes, and fills the matrices."""
    arguments = argparse.ArgumentParser(description="Write a model of random weights")
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--width", type=int, default=768, help="of a token's row, a multiple of 64")
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--context", type=int, default=4096, help="in tokens")
    given = arguments.parse_args()
    toy = gguf.GGUFReader(FILE)
    writer = gguf.GGUFWriter(given.out, "llama")
    copy_metadata(toy, writer, given)
    tokens = toy.fields["tokenizer.ggml.tokens"].contents()
    count = fill(writer, given.width, given.layers, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{given.out}: {count / 1e6:.0f} million parameters, {given.out.stat().st_size / 1e6:.0f} MB")


def copy_metadata(toy: gguf.GGUFReader, writer: gguf.GGUFWriter, given: argparse.Namespace) -> None:
    """All that the toy model says, but its sizes."""
    sizes = {
        "llama.block_count": given.layers,
        "llama.context_length": given.context,
        "llama.embedding_length": given.width,
        "llama.feed_forward_length": 4 * given.width,
        "llama.attention.head_count": given.width // HEAD,
        "llama.attention.head_count_kv": given.width // HEAD,
        "llama.rope.dimension_count": HEAD,
        "general.name": "random",
    }
    for name, field in toy.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, sizes.pop(name, field.contents()), field.types[0], inner)
    for name, value in sizes.items():
        if isinstance(value, int):
            writer.add_uint32(name, value)


def fill(writer: gguf.GGUFWriter, width: int, layers: int, tokens: list[str]) -> int:
    """The matrices; how many numbers they are."""
    random = np.random.default_rng(1)
    count = 0

    def matrix(name: str, rows: int, columns: int, plain: tuple[int, ...] = ()) -> None:
        nonlocal count
        values = random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        values[list(plain)] = 0
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
        count += values.size

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    others = tuple(number for number, token in enumerate(tokens) if not WORD.fullmatch(token))
    matrix("token_embd", len(tokens), width)
    matrix("output", len(tokens), width, others)
    norm("output_norm")
    for layer in range(layers):
        name = f"blk.{layer}.{{}}".format
        norm(name("attn_norm"))
        norm(name("ffn_norm"))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(name(part), width, width)
        matrix(name("ffn_gate"), 4 * width, width)
        matrix(name("ffn_up"), 4 * width, width)
        matrix(name("ffn_down"), width, 4 * width)
    return count


if __name__ == "__main__":
    main()
