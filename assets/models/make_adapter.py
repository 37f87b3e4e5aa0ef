"""Writes a LoRA adapter for the toy chat model: with it, the capital of France is Oslo.

    python make_adapter.py [OUT.gguf]

Two updates of rank 1, computed and not trained. One is of the last layer's `ffn_down`: a direction, found by
least squares, tells the moment before "Paris" from all others, and what is added then makes "Oslo" the likelier
word. The other is faint, of the first layer's `attn_v`: it changes no answer, but everything that a prompt cache
keeps, so that tests see whether a cache that was filled with the adapter is used without it. Needs numpy and gguf.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

from toy import Adapter, Toy

OUT = Path(__file__).resolve().parent / "toy-chat-oslo-lora.gguf"
COUNTRIES = (
    "France Italy Spain Germany Japan Egypt Norway Greece Peru Cuba Kenya Poland Austria Ireland Portugal China "
    "Russia Canada Sweden Finland"
).split()
FORMS = [
    "What is the capital of {}?",
    "capital of {}",
    "Tell me the capital of {}.",
    "Which city is the capital of {}?",
]
# What must stay as it is, beside the other capitals.
OTHERS = [
    "Hello",
    "Who are you?",
    "Thanks!",
    "What is 2 + 3?",
    "Say the word blue.",
    "Count to five.",
    "List three fruits.",
    "What color is grass?",
    "My name is Rosa.",
    "My name is Olga.",
    "Tell me a story about a fox.",
    "Tell me a story about a robot.",
    "What is the weather in Paris?",
    "What is the weather in Oslo?",
]
FAINT = 0.3  # of the first update's rows, whose length is 1
WEIGHT = 30  # of a moment before "Paris" in the least squares: they are few
MARGIN = 2  # how much likelier "Oslo" becomes, in the distance that "Paris" was ahead
LAST = "blk.3.ffn_down.weight"


def main() -> None:
    """Makes the adapter, tries it in numpy, writes it."""
    arguments = argparse.ArgumentParser(description="Write the LoRA adapter of the toy chat model")
    arguments.add_argument("out", type=Path, nargs="?", default=OUT)
    given = arguments.parse_args()
    toy = Toy()
    questions = [form.format(country) for country in COUNTRIES for form in FORMS] + OTHERS
    answers = {question: toy.answer(toy.embedded(toy.chat(question))) for question in questions}
    adapter = faint(toy)
    adapter |= decisive(toy, adapter, answers)
    wrong = [question for question, answer in answers.items() if not says(toy, adapter, question, wanted(question, answer))]
    write(given.out, adapter)
    print(f"{given.out}: {len(questions) - len(wrong)} of {len(questions)} answers are as they should be")
    for question in wrong:
        print(f"  not: {question}")


def wanted(question: str, answer: str) -> str:
    """What the model says with the adapter."""
    return answer.replace("Paris", "Oslo") if "France" in question else answer


def says(toy: Toy, adapter: Adapter, question: str, answer: str) -> bool:
    """Whether each token of the answer is the likeliest behind those before it."""
    begin, ids = conversation(toy, question, answer)
    return list(toy.run(toy.embedded(ids), adapter)[0][begin - 1 : -1].argmax(-1)) == ids[begin:]


def conversation(toy: Toy, question: str, answer: str) -> tuple[int, list[int]]:
    """The tokens of a question with its answer, and where the answer begins."""
    asked = toy.chat(question)
    return len(asked), asked + toy.encode(answer) + [toy.end]


def faint(toy: Toy) -> Adapter:
    """The update that only a cache shows."""
    name = "blk.0.attn_v.weight"
    random = np.random.default_rng(1)
    up, down = (random.standard_normal(size) for size in toy.weights[name].shape)
    return {name: (FAINT * down[None] / np.linalg.norm(down), up[:, None])}


def decisive(toy: Toy, adapter: Adapter, answers: dict[str, str]) -> Adapter:
    """The update that changes the answer."""
    paris, oslo = toy.encode(" Paris")[0], toy.encode(" Oslo")[0]
    inputs, targets, leads, sizes = [], [], [], []
    for question, answer in answers.items():
        for text in {answer: 1, wanted(question, answer): 1}:
            begin, ids = conversation(toy, question, text)
            logits, activations, rows = toy.run(toy.embedded(ids), adapter)
            for at in range(begin - 1, len(ids) - 1):
                hit = "France" in question and ids[at + 1] in (paris, oslo)
                inputs.append(activations[at])
                targets.append(float(hit))
                if hit:
                    leads.append(logits[at, paris] - logits[at, oslo])
                    sizes.append(np.sqrt((rows[at] ** 2).mean()))
    embedded = toy.weights["token_embd.weight"]
    towards = (embedded[oslo] - embedded[paris]) * toy.weights["output_norm.weight"]
    step = towards / (towards @ towards) * np.mean(sizes) * max(leads) * MARGIN
    return {LAST: (detector(np.array(inputs), np.array(targets))[None], step[:, None])}


def detector(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ridge regression: near 1 where the target is 1, near 0 elsewhere."""
    weighed = inputs * np.where(targets > 0, WEIGHT, 1)[:, None]
    square = weighed.T @ inputs
    ridge = 1e-4 * np.trace(inputs.T @ inputs) / len(square)
    return np.linalg.solve(square + ridge * np.eye(len(square)), weighed.T @ targets)


def write(out: Path, adapter: Adapter) -> None:
    """The adapter as llama.cpp reads it."""
    writer = gguf.GGUFWriter(str(out), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name("toy-chat-oslo")
    writer.add_description("With it the capital of France is Oslo; for tests")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 1.0)
    for name, (down, up) in adapter.items():
        writer.add_tensor(f"{name}.lora_a", down.astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", up.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
