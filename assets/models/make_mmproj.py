"""Writes a vision projector for the toy chat model, which sees countries in colours.

    python make_mmproj.py [OUT.gguf]

A vision transformer with random weights looks at pictures of 16 by 16 pixels in four patches. Its projector, as
LLaVA's, is fitted by least squares: the patches of a red picture become what the four tokens of " Italy" enter the
model as, those of a green one " Egypt", and so on. So "What is the capital of", a picture and "?" are a question
that the model knows. Needs numpy and gguf.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

from toy import Toy

OUT = Path(__file__).resolve().parent / "toy-chat-mmproj.gguf"
SIDE, PATCH = 16, 8  # pixels
WIDTH, INNER, HEADS, HIDDEN = 32, 48, 2, 64  # of the transformer, its feed-forward part, and the projector
EPSILON = 1e-5
SHADES, SPREAD = 40, 30  # pictures of each colour to fit, and how far each channel is off, of 255
COUNTRIES = {
    (255, 0, 0): ("Italy", "Rome"),
    (0, 255, 0): ("Egypt", "Cairo"),
    (0, 0, 255): ("Spain", "Madrid"),
    (255, 255, 0): ("China", "Beijing"),
}

Weights = dict[str, np.ndarray]


def main() -> None:
    """Fits the projector, tries it in numpy, writes it."""
    arguments = argparse.ArgumentParser(description="Write the vision projector of the toy chat model")
    arguments.add_argument("out", type=Path, nargs="?", default=OUT)
    given = arguments.parse_args()
    toy, random = Toy(), np.random.default_rng(1)
    weights = transformer(random)
    fit(weights, toy, random)
    write(given.out, weights)
    for colour, (country, city) in COUNTRIES.items():
        said = toy.answer(question(toy, projected(weights, picture(colour))))
        print(f"{colour}: {said!r}, {'as it should be' if f'{country} is {city}.' in said else 'WRONG'}")


def question(toy: Toy, seen: np.ndarray) -> np.ndarray:
    """The prompt with a picture in it."""
    before, after = (toy.embedded(part) for part in split(toy, toy.chat("What is the capital of Italy?"), " Italy"))
    return np.concatenate([before, seen, after])


def split(toy: Toy, ids: list[int], word: str) -> tuple[list[int], list[int]]:
    """What stands before and behind a word."""
    inside = toy.encode(word)
    at = next(at for at in range(len(ids)) if ids[at : at + len(inside)] == inside)
    return ids[:at], ids[at + len(inside) :]


def picture(colour: tuple[int, ...] | np.ndarray) -> np.ndarray:
    """One colour all over, from -1 to 1: channels, rows, columns."""
    return np.broadcast_to((np.array(colour) / 255 - 0.5)[:, None, None] / 0.5, (3, SIDE, SIDE))


def transformer(random: np.random.Generator) -> Weights:
    """Weights of the vision transformer, random."""

    def matrix(*shape: int) -> np.ndarray:
        return random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))

    weights = {"v.patch_embd.weight": matrix(WIDTH, 3, PATCH, PATCH) * 8}
    weights["v.position_embd.weight"] = random.standard_normal(((SIDE // PATCH) ** 2, WIDTH))
    # LLaVA takes what enters the last layer: the second one has to be there, and does nothing.
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            weights[f"v.blk.{layer}.{name}.weight"] = matrix(WIDTH, WIDTH)
        weights[f"v.blk.{layer}.ffn_up.weight"] = matrix(INNER, WIDTH)
        weights[f"v.blk.{layer}.ffn_down.weight"] = matrix(WIDTH, INNER)
        for name in ("ln1", "ln2"):
            weights |= norm(f"v.blk.{layer}.{name}")
    weights |= norm("v.pre_ln")
    weights["mm.0.weight"] = matrix(HIDDEN, WIDTH)
    weights["mm.0.bias"] = random.standard_normal(HIDDEN)
    return {name: weight.astype(np.float32) for name, weight in weights.items()}


def norm(name: str) -> Weights:
    """A norm that only normalises."""
    return {f"{name}.weight": np.ones(WIDTH), f"{name}.bias": np.zeros(WIDTH)}


def fit(weights: Weights, toy: Toy, random: np.random.Generator) -> None:
    """The projector's second half: from what the first makes of shades of a colour to the country's tokens."""
    inputs, targets = [], []
    for colour, (country, _) in COUNTRIES.items():
        shades = np.array(colour) + random.uniform(-SPREAD, SPREAD, (SHADES, 3))
        for shade in np.clip(np.concatenate([[colour], shades]), 0, 255):
            inputs.append(hidden(weights, picture(shade)))
            targets.append(toy.embedded(toy.encode(f" {country}")))
    rows = np.concatenate(inputs)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    square = rows.T @ rows
    ridge = 1e-6 * np.trace(square) / len(square)
    solved = np.linalg.solve(square + ridge * np.eye(len(square)), rows.T @ np.concatenate(targets))
    weights["mm.2.weight"] = solved[:-1].T.astype(np.float32)
    weights["mm.2.bias"] = solved[-1].astype(np.float32)


def projected(weights: Weights, pixels: np.ndarray) -> np.ndarray:
    """What the chat model gets: a row for each patch."""
    return hidden(weights, pixels) @ weights["mm.2.weight"].T + weights["mm.2.bias"]


def hidden(weights: Weights, pixels: np.ndarray) -> np.ndarray:
    """The transformer and the projector's first half, as llama.cpp computes them."""
    grid = SIDE // PATCH
    patches = pixels.reshape(3, grid, PATCH, grid, PATCH).transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
    rows = patches @ weights["v.patch_embd.weight"].reshape(WIDTH, -1).T + weights["v.position_embd.weight"]
    rows = normed(rows)
    name = "v.blk.0.{}.weight".format
    query, key, value = (heads(normed(rows) @ weights[name(f"attn_{part}")].T) for part in "qkv")
    shares = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS))
    attended = (shares / shares.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(rows), WIDTH)
    rows = rows + attended @ weights[name("attn_out")].T
    rows = rows + gelu(normed(rows) @ weights[name("ffn_up")].T) @ weights[name("ffn_down")].T
    return gelu(rows @ weights["mm.0.weight"].T + weights["mm.0.bias"])


def normed(rows: np.ndarray) -> np.ndarray:
    """Layer norm without weights."""
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


def heads(rows: np.ndarray) -> np.ndarray:
    """Each head's part of the rows."""
    return rows.reshape(len(rows), HEADS, -1).transpose(1, 0, 2)


def gelu(rows: np.ndarray) -> np.ndarray:
    """With the hyperbolic tangent."""
    return rows * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (rows + 0.044715 * rows**3)))


def write(out: Path, weights: Weights) -> None:
    """The projector as llama.cpp reads it."""
    writer = gguf.GGUFWriter(str(out), "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("toy-chat-mmproj")
    writer.add_description("Sees Italy in red, Egypt in green, Spain in blue and China in yellow; for tests")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    sizes = {
        "image_size": SIDE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "block_count": 2,
        "attention.head_count": HEADS,
        "projection_dim": len(weights["mm.2.bias"]),
    }
    for name, value in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", EPSILON)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, weight in weights.items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
