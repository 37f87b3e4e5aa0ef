"""The ollama SDK, unmodified, through everything that Pontoon's Ollama dialect has."""

import json
import time

import ollama

from check import CHAT, EMBED, KEY, PIXEL, URL, VISION, WEATHER, check, http, http_json, need, raises, run

client = ollama.Client(host=URL, headers={"authorization": f"Bearer {KEY}"}, timeout=120)
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather", "parameters": WEATHER}}
COLD = {"temperature": 0, "num_predict": 60}
SCHEMA = {"type": "object", "properties": {"zulu": {"enum": ["red", "blue"]}, "alpha": {"enum": [1, 2]}},
          "required": ["zulu", "alpha"], "additionalProperties": False}


def loaded():
    return [model.model for model in client.ps().models]


def until(condition, what):
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"after ten seconds still not: {what}")


def measured(answer):
    assert answer.done and answer.total_duration > 0 and answer.load_duration is not None, answer
    assert answer.prompt_eval_count > 0 and answer.eval_count > 0, answer
    assert answer.eval_duration > 0 and answer.prompt_eval_duration >= 0, answer
    assert answer.total_duration >= answer.eval_duration, answer


@check
def version_and_lists():
    status, answer = http_json("GET", "/api/version")
    assert status == 200 and answer["version"].count(".") >= 1
    models = client.list().models
    assert CHAT in [model.model for model in models], models
    one = next(model for model in models if model.model == CHAT)
    assert one.size > 0 and one.digest and one.modified_at and one.details.format


@check
def show_tells_about_a_model():
    shown = client.show(CHAT)
    assert shown.details.family and shown.modelinfo is not None and "completion" in shown.capabilities, shown
    raises(ollama.ResponseError, lambda: client.show("ai/there-is-no-such-model"))


@check
def chat_answers_with_measures():
    answer = client.chat(CHAT, CAPITAL, options=COLD)
    assert "Paris" in answer.message.content and answer.message.role == "assistant", answer
    assert answer.model == CHAT and answer.created_at and answer.done_reason == "stop"
    measured(answer)


@check
def chat_streams():
    lines = list(client.chat(CHAT, CAPITAL, options=COLD, stream=True))
    text = "".join(line.message.content or "" for line in lines)
    assert "Paris" in text and len(lines) > 3
    assert not any(line.done for line in lines[:-1])
    assert lines[-1].done_reason == "stop"
    measured(lines[-1])
    assert text == client.chat(CHAT, CAPITAL, options=COLD).message.content


@check
def generate_answers_and_goes_on():
    first = client.generate(CHAT, "My name is Anna.", options=COLD)
    assert first.response and first.context
    measured(first)
    second = client.generate(CHAT, "What is my name?", context=first.context, options=COLD)
    assert second.prompt_eval_count > first.prompt_eval_count
    lines = list(client.generate(CHAT, "What is my name?", context=first.context, options=COLD, stream=True))
    assert "".join(line.response for line in lines) == second.response and lines[-1].context == second.context
    measured(lines[-1])


@check
def generate_with_system():
    assert client.generate(CHAT, "Hello", system="You answer.", options=COLD).response


@check
def generate_raw():
    answer = client.generate(CHAT, "The capital of France is", raw=True, options=COLD)
    assert answer.response and not answer.context
    text = "".join(line.response for line in client.generate(
        CHAT, "The capital of France is", raw=True, options=COLD, stream=True))
    assert text == answer.response


@check
def generate_between_two_texts():
    try:
        answer = client.generate(CHAT, "def add(a, b):\n", suffix="\n    return c", options=COLD)
        assert answer.response is not None
    except ollama.ResponseError as error:
        assert error.status_code == 400 and "supported" in error.error, error


@check
def options_are_taken():
    options = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "seed": 3, "repeat_penalty": 1.1,
               "repeat_last_n": -1, "num_predict": 20, "stop": ["zzz"], "num_thread": 2, "presence_penalty": 0.1}
    first, second = (client.chat(CHAT, CAPITAL, options=options).message.content for _ in range(2))
    assert first == second
    cut = client.chat(CHAT, CAPITAL, options={"num_predict": 3})
    assert cut.done_reason == "length" and cut.eval_count == 3
    stopped = client.chat(CHAT, CAPITAL, options=COLD | {"stop": ["Par"]})
    assert "Par" not in stopped.message.content


@check
def format_by_schema_and_json():
    answer = client.chat(CHAT, CAPITAL, format=SCHEMA, options=COLD)
    assert list(json.loads(answer.message.content)) == ["zulu", "alpha"]
    text = "".join(line.response for line in client.generate(CHAT, "Hello", format=SCHEMA, options=COLD, stream=True))
    assert list(json.loads(text)) == ["zulu", "alpha"]
    raw = client.generate(CHAT, "Hello", raw=True, format=SCHEMA, options=COLD).response
    assert list(json.loads(raw)) == ["zulu", "alpha"]
    anything = client.chat(CHAT, CAPITAL, format="json", options={"temperature": 0, "num_predict": 5})
    assert anything.message.content.lstrip().startswith("{")


@check
def tool_call_and_its_result():
    def get_weather(city: str) -> str:
        """Tells the weather.

        Args:
          city: the city
        """
        return city

    for tools in ([TOOL], [get_weather]):
        answer = client.chat(CHAT, ASK_WEATHER, tools=tools, options=COLD)
        call = answer.message.tool_calls[0].function
        assert call.name == "get_weather" and call.arguments["city"], answer
        follow = client.chat(CHAT, [*ASK_WEATHER, answer.message,
                                    {"role": "tool", "tool_name": "get_weather", "content": '{"temp": 21}'}],
                             tools=tools, options=COLD)
        assert follow.message.content


@check
def tool_call_streams():
    lines = list(client.chat(CHAT, ASK_WEATHER, tools=[TOOL], options=COLD, stream=True))
    calls = [call for line in lines for call in line.message.tool_calls or []]
    assert len(calls) == 1 and calls[0].function.arguments["city"], lines
    assert lines[-1].done


@check
def log_probabilities_come():
    answer = client.chat(CHAT, CAPITAL, logprobs=True, top_logprobs=2, options=COLD)
    assert answer.logprobs and len(answer.logprobs[0].top_logprobs) == 2 and answer.logprobs[0].logprob <= 0
    assert client.chat(CHAT, CAPITAL, logprobs=True, options=COLD).logprobs
    lines = client.generate(CHAT, "Hello", logprobs=True, top_logprobs=1, options=COLD, stream=True)
    assert any(line.logprobs for line in lines)


@check
def think_is_taken():
    for think in (True, False, "low"):
        assert client.chat(CHAT, CAPITAL, think=think, options=COLD).message.content


@check
def image_is_seen():
    message = {"role": "user", "content": "What is it?", "images": [PIXEL]}
    assert client.chat(need(VISION, "vision"), [message], options=COLD).message.content


@check
def embeddings():
    one = client.embed(EMBED, "a cat")
    many = client.embed(EMBED, ["a cat", "a dog"])
    assert len(one.embeddings) == 1 and len(many.embeddings) == 2 and many.model == EMBED
    assert all(abs(a - b) < 1e-3 for a, b in zip(one.embeddings[0], many.embeddings[0]))
    assert abs(sum(x * x for x in one.embeddings[0]) - 1) < 1e-4
    assert one.total_duration > 0 and one.prompt_eval_count > 0
    assert len(client.embed(EMBED, "a cat", dimensions=16).embeddings[0]) == 16
    old = client.embeddings(EMBED, "a cat")
    assert len(old.embedding) == len(one.embeddings[0])
    assert client.embed(EMBED, "").embeddings == []


@check
def empty_requests_load_and_unload():
    answer = client.generate(CHAT, keep_alive="10m")
    assert answer.done_reason == "load" and answer.done
    until(lambda: CHAT in loaded(), f"{CHAT} is loaded")
    one = next(model for model in client.ps().models if model.model == CHAT)
    assert one.expires_at and one.size > 0
    answer = client.generate(CHAT, keep_alive=0)
    assert answer.done_reason == "unload"
    until(lambda: CHAT not in loaded(), f"{CHAT} is unloaded")
    assert client.chat(CHAT, [], keep_alive=-1).done_reason == "load"
    until(lambda: CHAT in loaded(), f"{CHAT} is loaded for ever")
    assert client.chat(CHAT, [], keep_alive="0s").done_reason == "unload"
    until(lambda: CHAT not in loaded(), f"{CHAT} is unloaded again")


@check
def keep_alive_of_a_request_counts():
    assert client.chat(CHAT, CAPITAL, options=COLD, keep_alive=0).message.content
    until(lambda: CHAT not in loaded(), f"{CHAT} is unloaded after its answer")
    for good in ("5m", "1h30m", 300, -1, "-1m", 1.5):
        assert client.chat(CHAT, CAPITAL, options=COLD, keep_alive=good).done
    for bad in ("soon", "5 minutes", True):
        status, answer = http_json("POST", "/api/chat", {"model": CHAT, "messages": CAPITAL, "keep_alive": bad})
        assert status == 400 and "keep_alive" in answer["error"], (bad, answer)


@check
def unknown_model_is_not_found():
    for ask in (lambda: client.chat("ai/there-is-no-such-model", CAPITAL),
                lambda: client.generate("ai/there-is-no-such-model", "x"),
                lambda: client.embed("ai/there-is-no-such-model", "x"),
                lambda: list(client.chat("ai/there-is-no-such-model", CAPITAL, stream=True))):
        error = raises(ollama.ResponseError, ask)
        assert error.status_code == 404 and "there-is-no-such-model" in error.error, error


@check
def bad_values_are_named():
    cases = [
        ("/api/chat", {"messages": "hello"}, "messages"), ("/api/chat", {"messages": [{"role": "robot"}]}, "messages[0].role"),
        ("/api/chat", {"messages": CAPITAL, "options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"messages": CAPITAL, "options": {"repeat_last_n": 2**31 - 1}}, "options.repeat_last_n"),
        ("/api/chat", {"messages": CAPITAL, "format": "xml"}, "format"),
        ("/api/chat", {"messages": CAPITAL, "think": "hard"}, "think"),
        ("/api/chat", {"messages": CAPITAL, "top_logprobs": 21}, "top_logprobs"),
        ("/api/chat", {"messages": CAPITAL, "tools": [{"type": "function"}]}, "tools[0].function"),
        ("/api/generate", {"prompt": 5}, "prompt"), ("/api/generate", {"prompt": "x", "context": [1, 2]}, "context"),
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}, "raw"),
        ("/api/embed", {"input": [1]}, "input[0]"), ("/api/embed", {"input": {}}, "input"),
    ]
    for path, change, named in cases:
        status, answer = http_json("POST", path, {"model": CHAT} | change)
        assert status == 400 and list(answer) == ["error"] and named in answer["error"], (path, change, status, answer)
    status, answer = http_json("POST", "/api/chat", {"messages": CAPITAL})
    assert status == 400 and "model" in answer["error"]
    status, _, text = http("POST", "/api/chat", raw=b"{")
    assert status == 400 and json.loads(text)["error"]


@check
def cancelled_stream_frees_its_place():
    for _ in range(8):
        stream = client.chat(CHAT, CAPITAL, options={"temperature": 1, "num_predict": 4000}, stream=True)
        next(stream)
        stream.close()
    assert "Paris" in client.chat(CHAT, CAPITAL, options=COLD).message.content


run("ollama")
