"""The toy chat model in numpy: its file, its tokenizer, and one pass through it. For the scripts beside it."""

import re
from pathlib import Path

import gguf
import numpy as np

FILE = Path(__file__).resolve().parent / "toy-chat-q8_0.gguf"
SPECIAL = re.compile(r"(<\|im_start\|>|<\|im_end\|>)")
# GPT-2's rule for words, as far as ASCII goes.
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")

# A low-rank update of each matrix that it names: the input is multiplied with the first, then the second.
Adapter = dict[str, tuple[np.ndarray, np.ndarray]]


class Toy:
    """Weights, vocabulary and sizes."""

    def __init__(self, path: Path = FILE):
        reader = gguf.GGUFReader(path)
        field = {name: part.contents for name, part in reader.fields.items()}
        self.tokens: list[str] = field["tokenizer.ggml.tokens"]()
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self.end: int = field["tokenizer.ggml.eos_token_id"]()
        merges = field["tokenizer.ggml.merges"]()
        self.ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(merges)}
        self.layers: int = field["llama.block_count"]()
        self.heads: int = field["llama.attention.head_count"]()
        self.kv_heads: int = field["llama.attention.head_count_kv"]()
        self.epsilon: float = field["llama.attention.layer_norm_rms_epsilon"]()
        self.base: float = field["llama.rope.freq_base"]()
        self.weights = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}

    def encode(self, text: str) -> list[int]:
        """The tokens of an ASCII text."""
        ids = []
        for part in SPECIAL.split(text):
            if SPECIAL.fullmatch(part):
                ids.append(self.ids[part])
            else:
                ids += [token for word in WORDS.findall(part) for token in self.word(word)]
        return ids

    def word(self, word: str) -> list[int]:
        """Byte-pair encoding of one word."""
        parts = list(word.replace(" ", "\u0120").replace("\n", "\u010a"))
        while pairs := [(self.ranks[pair], at) for at, pair in enumerate(zip(parts, parts[1:])) if pair in self.ranks]:
            _, at = min(pairs)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts]

    def chat(self, question: str) -> list[int]:
        """The tokens up to where the model's answer begins."""
        return self.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")

    def embedded(self, ids: list[int]) -> np.ndarray:
        """The rows that tokens enter the model as."""
        return self.weights["token_embd.weight"][ids]

    def answer(self, prompt: np.ndarray, most: int = 120) -> str:
        """What the model says when it always takes the likeliest token."""
        rows, said = prompt, []
        for _ in range(most):
            token = int(self.run(rows)[0][-1].argmax())
            if token == self.end:
                break
            rows = np.concatenate([rows, self.embedded([token])])
            said.append(self.tokens[token])
        return "".join(said).replace("\u0120", " ").replace("\u010a", "\n")

    def run(self, rows: np.ndarray, adapter: Adapter | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each row: logits, what enters the last `ffn_down`, and what leaves the last layer."""
        adapter = adapter or {}

        def times(value: np.ndarray, name: str) -> np.ndarray:
            product = value @ self.weights[name].T
            if name in adapter:
                down, up = adapter[name]
                product = product + value @ down.T @ up.T
            return product

        activation = rows
        for layer in range(self.layers):
            name = f"blk.{layer}.{{}}.weight".format
            normed = self.normed(rows, name("attn_norm"))
            query, key, value = (times(normed, name(f"attn_{part}")) for part in "qkv")
            rows = rows + times(self.attend(query, key, value), name("attn_output"))
            normed = self.normed(rows, name("ffn_norm"))
            gate = times(normed, name("ffn_gate"))
            activation = gate / (1 + np.exp(-gate)) * times(normed, name("ffn_up"))
            rows = rows + times(activation, name("ffn_down"))
        logits = self.normed(rows, "output_norm.weight") @ self.weights["token_embd.weight"].T
        return logits, activation, rows

    def normed(self, rows: np.ndarray, name: str) -> np.ndarray:
        """Root mean square norm."""
        return rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + self.epsilon) * self.weights[name]

    def attend(self, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Attention to everything before; heads share keys and values in groups."""
        count = len(query)
        query = self.rotated(query.reshape(count, self.heads, -1))
        key = self.rotated(key.reshape(count, self.kv_heads, -1))
        key, value = (
            np.repeat(each.reshape(count, self.kv_heads, -1), self.heads // self.kv_heads, 1) for each in (key, value)
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
        scores += np.triu(np.full((count, count), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", shares, value).reshape(count, -1)

    def rotated(self, rows: np.ndarray) -> np.ndarray:
        """Rotary positions, on neighbouring pairs."""
        count, _, width = rows.shape
        angles = np.arange(count)[:, None] * self.base ** (-np.arange(0, width, 2) / width)
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        even, odd = rows[..., 0::2], rows[..., 1::2]
        turned = np.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
        return turned.reshape(rows.shape)
