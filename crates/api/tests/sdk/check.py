"""Runs named checks of one SDK against a running Pontoon and says which held.

Environment: PONTOON_URL (default http://127.0.0.1:12434), PONTOON_CHAT and PONTOON_EMBED (model names, required),
PONTOON_RERANK and PONTOON_VISION (model names, optional), PONTOON_KEY (bearer key, optional), PONTOON_ONLY (run only
checks whose name contains this).
"""

import json
import os
import sys
import time
import traceback
import urllib.error
import urllib.request

URL = os.environ.get("PONTOON_URL", "http://127.0.0.1:12434").rstrip("/")
CHAT = os.environ.get("PONTOON_CHAT", "")
EMBED = os.environ.get("PONTOON_EMBED", "")
RERANK = os.environ.get("PONTOON_RERANK", "")
VISION = os.environ.get("PONTOON_VISION", "")
KEY = os.environ.get("PONTOON_KEY", "unused")

# A red dot of one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "the city"}},
    "required": ["city"],
}

_checks = []


class Skip(Exception):
    """The check needs something that this run does not have."""


def check(function):
    """Registers a check under its function's name."""
    _checks.append(function)
    return function


def need(value, what):
    """Skips the check where a model of some kind was not named."""
    if not value:
        raise Skip(f"no {what} model was named")
    return value


def raises(kind, function):
    """Runs `function`, which must raise `kind`, and returns what it raised."""
    try:
        got = function()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {got!r}")


def http(method, path, body=None, headers=None, raw=None):
    """One request without any SDK. Returns status, headers and body."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    all_headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}", **(headers or {})}
    request = urllib.request.Request(URL + path, data=data, method=method, headers=all_headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def http_json(method, path, body=None, headers=None, raw=None):
    """Like `http`, with the body parsed."""
    status, _, text = http(method, path, body, headers, raw)
    return status, json.loads(text)


def run(title):
    """Runs all checks; ends the process with 1 where one failed."""
    if not CHAT or not EMBED:
        sys.exit("set PONTOON_CHAT and PONTOON_EMBED to the names of a chat and an embedding model")
    only = os.environ.get("PONTOON_ONLY", "")
    failed = skipped = held = 0
    for function in _checks:
        name = function.__name__
        if only not in name:
            continue
        begun = time.monotonic()
        try:
            function()
            held += 1
            print(f"ok      {title}: {name} ({(time.monotonic() - begun) * 1e3:.0f} ms)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skipped {title}: {name}: {reason}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {title}: {name}\n{traceback.format_exc()}", flush=True)
    print(f"{title}: {held} held, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
