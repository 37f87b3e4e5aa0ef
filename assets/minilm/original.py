"""The original all-MiniLM-L6-v2 as its package carries it: settings, vocabulary and 32-bit weights."""

import json
import struct
from pathlib import Path

import numpy as np


class Original:
    """What a folder with `config.json`, `vocab.txt` and `model.safetensors` holds."""

    def __init__(self, folder: Path):
        self.config: dict = json.loads((folder / "config.json").read_text("utf-8"))
        self.vocabulary: list[str] = (folder / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n")
        self.weights: dict[str, np.ndarray] = read_safetensors(folder / "model.safetensors")


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The 32-bit tensors of a safetensors file: a length, a JSON table of that length, then the numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    table = json.loads(data[8 : 8 + length])
    numbers = memoryview(data)[8 + length :]
    tensors = {}
    for name, entry in table.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue  # the only other tensor is a list of positions, which nothing here needs
        first, last = entry["data_offsets"]
        tensors[name] = np.frombuffer(numbers[first:last], np.float32).reshape(entry["shape"])
    return tensors
