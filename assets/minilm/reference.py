"""all-MiniLM-L6-v2 in numpy, from its original weights: what every engine's embeddings are held against."""

import unicodedata

import numpy as np

from original import Original

LONGEST_WORD = 100  # characters; a longer one is unknown, as in the original tokenizer


class Reference:
    """Texts to embeddings, one at a time and slowly."""

    def __init__(self, original: Original):
        self.weights = original.weights
        self.layers: int = original.config["num_hidden_layers"]
        self.heads: int = original.config["num_attention_heads"]
        self.epsilon: float = original.config["layer_norm_eps"]
        self.tokenizer = WordPiece(original.vocabulary)

    def embed(self, text: str) -> np.ndarray:
        """The mean over the text's tokens of what the last layer says of each."""
        return self._states(self.tokenizer.encode(text)).mean(axis=0)

    def pair(self, query: str, document: str) -> np.ndarray:
        """What the last layer says of each token of two texts, put together as llama.cpp does for reranking."""
        return self._states(self.tokenizer.encode(query) + self.tokenizer.encode(document)[1:])

    def _states(self, tokens: list[int]) -> np.ndarray:
        state = self._embedding(tokens)
        for layer in range(self.layers):
            state = self._layer(state, f"encoder.layer.{layer}")
        return state

    def _embedding(self, tokens: list[int]) -> np.ndarray:
        words = self.weights["embeddings.word_embeddings.weight"][tokens]
        positions = self.weights["embeddings.position_embeddings.weight"][: len(tokens)]
        first_kind = self.weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm(words + positions + first_kind, "embeddings.LayerNorm")

    def _layer(self, state: np.ndarray, name: str) -> np.ndarray:
        seen = self._linear(self._attention(state, f"{name}.attention.self"), f"{name}.attention.output.dense")
        state = self._norm(state + seen, f"{name}.attention.output.LayerNorm")
        inner = gelu(self._linear(state, f"{name}.intermediate.dense"))
        return self._norm(state + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, state: np.ndarray, name: str) -> np.ndarray:
        length, width = state.shape

        def heads(part: str) -> np.ndarray:
            split = self._linear(state, f"{name}.{part}").reshape(length, self.heads, width // self.heads)
            return split.transpose(1, 0, 2)

        scores = heads("query") @ heads("key").transpose(0, 2, 1) / np.sqrt(width / self.heads)
        seen = softmax(scores) @ heads("value")
        return seen.transpose(1, 0, 2).reshape(length, width)

    def _linear(self, state: np.ndarray, name: str) -> np.ndarray:
        return state @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, state: np.ndarray, name: str) -> np.ndarray:
        centred = state - state.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares that sum to 1 along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gelu(values: np.ndarray) -> np.ndarray:
    """The exact form, not the tanh one; erf by Abramowitz and Stegun 7.1.26, off by at most 1.5e-7."""
    scaled = np.abs(values) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(values) * (1.0 - series * np.exp(-(scaled**2)))
    return 0.5 * values * (1.0 + erf)


class WordPiece:
    """BERT's tokenizer for lower-case models."""

    def __init__(self, vocabulary: list[str]):
        self.ids = {token: number for number, token in enumerate(vocabulary)}

    def encode(self, text: str) -> list[int]:
        """Token numbers, the opening and the closing one included."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self.ids[token] for token in ["[CLS]", *pieces, "[SEP]"]]

    def _pieces(self, word: str) -> list[str]:
        """The longest known beginning, then the longest known continuation, and so on."""
        pieces, start = [], 0
        while start < len(word) <= LONGEST_WORD:
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self.ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces or ["[UNK]"]


def words(text: str) -> list[str]:
    """Lower-case words without accents; punctuation and Chinese characters are words of their own."""
    plain = unicodedata.normalize("NFD", text.lower())
    spaced = []
    for char in plain:
        kind = unicodedata.category(char)
        if kind == "Mn" or (kind in ("Cc", "Cf") and not char.isspace()) or char == "\ufffd":
            continue
        spaced.append(f" {char} " if is_punctuation(char) or is_chinese(char) else char)
    return "".join(spaced).split()


def is_punctuation(char: str) -> bool:
    """Unicode's punctuation, and all of ASCII that is neither letter, digit nor space."""
    ascii_sign = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return ascii_sign or unicodedata.category(char).startswith("P")


def is_chinese(char: str) -> bool:
    """The blocks of CJK ideographs."""
    blocks = [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F)]
    return any(first <= ord(char) <= last for first, last in blocks)
