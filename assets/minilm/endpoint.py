"""An OpenAI-compatible embeddings endpoint, over TCP or a unix socket."""

import argparse
import http.client
import json
import socket
from urllib.parse import urlsplit

import numpy as np

WIDTH = 384  # numbers in an embedding of all-MiniLM-L6-v2
PATIENCE = 120  # seconds: the first request may have to load the model


class EndpointError(Exception):
    """The endpoint did not give embeddings; the text says what it gave instead."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """What a program needs to be told about the endpoint."""
    arguments.add_argument("url", help="such as http://127.0.0.1:8080/v1/embeddings")
    arguments.add_argument("--unix-socket", metavar="PATH", help="connect to this socket instead of the URL's host")
    arguments.add_argument("--model", default="all-minilm", help="the name that the endpoint knows the model by")


def embed(given: argparse.Namespace, texts: list[str]) -> np.ndarray:
    """One row for each text."""
    body = json.dumps({"model": given.model, "input": texts})
    url = urlsplit(given.url)
    try:
        connection = connect(url.hostname or "localhost", url.port or 80, given.unix_socket)
        connection.request("POST", url.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise EndpointError(f"{given.unix_socket or given.url} does not answer: {error}") from error
    if response.status != 200:
        raise EndpointError(f"{given.url} answered {response.status}: {answer[:500]}")
    return rows_of(answer, len(texts), given.url)


def rows_of(answer: str, wanted: int, url: str) -> np.ndarray:
    """The embeddings in an answer, in the order of the texts."""
    try:
        entries = sorted(json.loads(answer)["data"], key=lambda entry: entry["index"])
        rows = np.array([entry["embedding"] for entry in entries], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise EndpointError(f"{url} answered with something else than embeddings: {answer[:500]}") from error
    if rows.shape != (wanted, WIDTH):
        raise EndpointError(f"{url} gave embeddings of shape {rows.shape}, not {(wanted, WIDTH)}: another model?")
    return rows


def connect(host: str, port: int, path: str | None) -> http.client.HTTPConnection:
    """A connection, through the socket at `path` if there is one."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    if path is not None:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(path)
    return connection


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1, so that their products are cosines."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
