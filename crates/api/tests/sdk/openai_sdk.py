"""The openai SDK, unmodified, through everything that Pontoon's OpenAI dialect has."""

import asyncio
import base64
import json
import struct

import openai
import pydantic
from openai import AsyncOpenAI, OpenAI

from check import CHAT, EMBED, KEY, PIXEL, RERANK, URL, VISION, WEATHER, check, http, http_json, need, raises, run

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=120)
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather", "parameters": WEATHER}}
TIME_TOOL = {"type": "function", "function": {"name": "get_time", "description": "Tells the time", "parameters": WEATHER}}
SCHEMA = {
    "type": "object",
    "properties": {"zulu": {"enum": ["red", "blue"]}, "alpha": {"enum": [1, 2]}},
    "required": ["zulu", "alpha"],
    "additionalProperties": False,
}


def chat(**options):
    return client.chat.completions.create(**{"model": CHAT, "messages": CAPITAL, "temperature": 0, "max_tokens": 60} | options)


@check
def models_are_listed_and_found():
    names = [model.id for model in client.models.list()]
    assert CHAT in names, f"{CHAT} is not in {names}"
    found = client.models.retrieve(CHAT)
    assert found.id == CHAT and found.object == "model" and found.created > 0


@check
def unknown_model_is_not_found():
    error = raises(openai.NotFoundError, lambda: chat(model="ai/there-is-no-such-model"))
    assert error.body["code"] == "model_not_found", error.body
    assert "there-is-no-such-model" in error.message
    error = raises(openai.NotFoundError, lambda: client.models.retrieve("ai/there-is-no-such-model"))
    assert error.status_code == 404


@check
def chat_answers():
    answer = chat()
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.model == CHAT, answer.model
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@check
def chat_streams():
    text, finish, chunks = "", None, 0
    for chunk in chat(stream=True):
        assert chunk.model == CHAT and chunk.usage is None, chunk
        chunks += 1
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert "Paris" in text and finish == "stop" and chunks > 3, (text, finish, chunks)


@check
def chat_stream_counts_when_asked():
    last = None
    for chunk in chat(stream=True, stream_options={"include_usage": True}):
        last = chunk
    assert last.choices == [] and last.usage.prompt_tokens > 0 and last.usage.completion_tokens > 0, last


@check
def streamed_and_whole_answers_agree():
    whole = chat(seed=7).choices[0].message.content
    parts = "".join(c.choices[0].delta.content or "" for c in chat(seed=7, stream=True) if c.choices)
    assert whole == parts, (whole, parts)


@check
def stream_helper_accumulates():
    with client.chat.completions.stream(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=60) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds, kinds
    assert "Paris" in final.choices[0].message.content


@check
def stop_sequence_ends_the_answer():
    answer = chat(stop=["Par"])
    assert "Par" not in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    text = "".join(c.choices[0].delta.content or "" for c in chat(stop="Par", stream=True) if c.choices)
    assert "Par" not in text and text


@check
def max_tokens_ends_the_answer():
    for field in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=CHAT, messages=CAPITAL, **{field: 3})
        assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3, answer


@check
def samplers_are_taken():
    answer = chat(temperature=0.7, top_p=0.9, seed=11, presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"1": -1},
                  extra_body={"top_k": 20, "min_p": 0.05, "repeat_penalty": 1.05, "mirostat": 0})
    again = chat(temperature=0.7, top_p=0.9, seed=11, presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"1": -1},
                 extra_body={"top_k": 20, "min_p": 0.05, "repeat_penalty": 1.05, "mirostat": 0})
    assert answer.choices[0].message.content == again.choices[0].message.content


@check
def log_probabilities_come():
    for top in (None, 0, 3):
        options = {} if top is None else {"top_logprobs": top}
        tokens = chat(logprobs=True, **options).choices[0].logprobs.content
        assert tokens and all(token.logprob <= 0 and token.token is not None for token in tokens)
        assert len(tokens[0].top_logprobs) <= max(top or 1, 1)
    streamed = [t for c in chat(logprobs=True, top_logprobs=2, stream=True) if c.choices and c.choices[0].logprobs
                for t in c.choices[0].logprobs.content]
    assert streamed and len(streamed[0].top_logprobs) == 2
    raises(openai.BadRequestError, lambda: chat(logprobs=True, top_logprobs=21))


@check
def text_completions():
    options = {"model": CHAT, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**options, logprobs=2)
    assert whole.choices[0].text and whole.model == CHAT
    logprobs = whole.choices[0].logprobs
    assert logprobs.tokens and len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(**options, stream=True) if chunk.choices)
    assert text == whole.choices[0].text, (text, whole.choices[0].text)
    streamed = [token for chunk in client.completions.create(**options, stream=True, logprobs=1) if chunk.choices
                and chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens]
    assert "".join(streamed) == text
    several = client.completions.create(**options | {"prompt": ["Hello", "Good"]})
    assert len(several.choices) == 2


@check
def json_schema_in_its_order():
    answer = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}})
    got = json.loads(answer.choices[0].message.content)
    assert list(got) == ["zulu", "alpha"] and isinstance(got["alpha"], int), got
    text = "".join(c.choices[0].delta.content or "" for c in chat(stream=True, response_format={
        "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}) if c.choices)
    assert list(json.loads(text)) == ["zulu", "alpha"]


@check
def json_schema_from_a_class():
    class Kind(pydantic.BaseModel):
        yes: bool

    answer = client.chat.completions.parse(model=CHAT, messages=CAPITAL, response_format=Kind, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, Kind), answer


@check
def json_object():
    answer = chat(response_format={"type": "json_object"}, max_tokens=400, extra_body={"json_schema": {
        "type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@check
def grammar():
    answer = chat(extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert answer.choices[0].message.content in ("yes", "no")


@check
def tool_call_and_its_result():
    answer = chat(messages=ASK_WEATHER, tools=[TOOL], tool_choice="required", max_tokens=100)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls", answer
    call = message.tool_calls[0]
    assert call.id and call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temp": 21}'}
    follow = chat(messages=[*ASK_WEATHER, message, result], tools=[TOOL])
    assert follow.choices[0].message.content, follow


@check
def tool_call_streams():
    name, arguments, finish = "", "", None
    for chunk in chat(messages=ASK_WEATHER, tools=[TOOL], tool_choice="required", stream=True, max_tokens=100):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "get_weather" and "city" in json.loads(arguments) and finish == "tool_calls", (name, arguments, finish)


@check
def named_tool_is_the_one_called():
    choice = {"type": "function", "function": {"name": "get_time"}}
    answer = chat(messages=ASK_WEATHER, tools=[TOOL, TIME_TOOL], tool_choice=choice, max_tokens=100)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_time"], answer
    wrong = {"type": "function", "function": {"name": "nobody"}}
    error = raises(openai.BadRequestError, lambda: chat(tools=[TOOL], tool_choice=wrong))
    assert "nobody" in error.message


@check
def several_choices():
    answer = chat(n=2, temperature=1)
    assert sorted(choice.index for choice in answer.choices) == [0, 1], answer


@check
def fields_of_the_engine_cannot_be_set():
    answer = chat(extra_body={"id_slot": 99999, "n_discard": -1, "n_keep": -5, "chat_format": 99, "chat_parser": "x",
                              "grammar_triggers": 7, "verbose": True, "slot_id": -1})
    assert "Paris" in answer.choices[0].message.content
    assert "__verbose" not in answer.model_dump()


@check
def embeddings_in_both_encodings():
    options = {"model": EMBED, "input": ["a cat", "a dog", "a spanner"]}
    floats = client.embeddings.create(**options, encoding_format="float")
    default = client.embeddings.create(**options)
    assert [item.index for item in default.data] == [0, 1, 2] and default.model == EMBED
    assert default.usage.prompt_tokens > 0
    for left, right in zip(floats.data, default.data):
        assert len(left.embedding) == len(right.embedding) > 8
        assert all(abs(a - b) < 1e-4 for a, b in zip(left.embedding, right.embedding))
    _, raw = http_json("POST", "/v1/embeddings", {"model": EMBED, "input": "a cat", "encoding_format": "base64"})
    data = base64.b64decode(raw["data"][0]["embedding"])
    vector = struct.unpack(f"<{len(data) // 4}f", data)
    assert abs(sum(x * x for x in vector) - 1) < 1e-2


@check
def embeddings_with_fewer_dimensions():
    for encoding in ("float", "base64"):
        answer = client.embeddings.create(model=EMBED, input="a cat", dimensions=16, encoding_format=encoding)
        vector = answer.data[0].embedding
        if isinstance(vector, str):
            vector = struct.unpack("<16f", base64.b64decode(vector))
        assert len(vector) == 16 and abs(sum(x * x for x in vector) - 1) < 1e-3
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=EMBED, input="x", dimensions=0))
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=EMBED, input=[]))


@check
def reranking():
    body = {"model": RERANK, "query": "animals", "documents": ["a cat", {"text": "a spanner"}], "top_n": 1,
            "return_documents": True}
    status, answer = http_json("POST", "/v1/rerank", body | {"model": need(RERANK, "rerank")})
    assert status == 200 and len(answer["results"]) == 1, answer
    best = answer["results"][0]
    assert best["index"] == 0 and best["document"]["text"] == "a cat", answer
    status, answer = http_json("POST", "/score", {"model": RERANK, "text_1": "animals", "text_2": ["a cat", "a spanner"]})
    assert status == 200 and [item["index"] for item in answer["data"]] == [0, 1], answer


@check
def reranking_errors():
    for path in ("/v1/rerank", "/rerank", "/engines/rerank"):
        status, answer = http_json("POST", path, {"model": CHAT, "query": "x", "documents": []})
        assert status == 400 and answer["error"]["param"] == "documents", (path, status, answer)


@check
def image_is_seen():
    content = [{"type": "text", "text": "What is it?"},
               {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    answer = chat(model=need(VISION, "vision"), messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content


@check
def image_without_eyes_is_one_clear_error():
    def ask(url):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        return raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": content}]))

    assert "not fetched" in ask("https://example.org/cat.png").message
    assert "not fetched" in ask("file:///etc/passwd").message
    if CHAT != VISION:
        assert "not supported" in ask(f"data:image/png;base64,{PIXEL}").message


@check
def bad_values_are_named():
    cases = [
        ({"temperature": "hot"}, "temperature"), ({"temperature": -1}, "temperature"), ({"top_p": 2}, "top_p"),
        ({"n": 1000}, "n"), ({"max_tokens": -7}, "max_tokens"), ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"), ({"stop": [1]}, "stop[0]"), ({"stop": ["x"] * 65}, "stop"),
        ({"logprobs": 3}, "logprobs"), ({"stream": "yes"}, "stream"), ({"tools": {}}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"), ({"model": ""}, "model"), ({"model": 7}, "model"),
    ]
    for change, param in cases:
        body = {"model": CHAT, "messages": CAPITAL} | change
        status, answer = http_json("POST", "/v1/chat/completions", body)
        assert status == 400, (change, status, answer)
        error = answer["error"]
        assert error["param"] == param and error["type"] == "invalid_request_error", (change, error)
        assert set(error) == {"message", "type", "param", "code"}


@check
def bodies_that_are_no_requests():
    for raw in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model":"a","model":"b"}', b"[" * 100_000):
        status, answer = http_json("POST", "/v1/chat/completions", raw=raw)
        assert status == 400 and answer["error"]["message"], (raw[:20], status, answer)


@check
def prompt_over_the_context_is_refused():
    error = raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": "word " * 400_000}]))
    assert error.body["code"] == "context_length_exceeded", error.body


@check
def paths_of_docker_model_runner():
    body = {"model": CHAT, "messages": CAPITAL, "max_tokens": 5}
    for path in ("/v1", "/engines/v1", "/engines/llama.cpp/v1"):
        status, answer = http_json("POST", f"{path}/chat/completions", body)
        assert status == 200 and answer["object"] == "chat.completion", (path, status, answer)
        status, answer = http_json("GET", f"{path}/models")
        assert status == 200 and answer["object"] == "list", (path, answer)


@check
def cancelled_stream_frees_its_place():
    for _ in range(8):
        stream = chat(stream=True, max_tokens=4000, temperature=1, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    assert "Paris" in chat().choices[0].message.content


@check
def many_at_once():
    async def one(client):
        text = ""
        async for chunk in await client.chat.completions.create(
                model=CHAT, messages=CAPITAL, temperature=0, max_tokens=60, stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        return text

    async def all_of_them():
        async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, timeout=120) as client:
            return await asyncio.gather(*(one(client) for _ in range(16)))

    assert all("Paris" in text for text in asyncio.run(all_of_them()))


def respond(**options):
    return client.responses.create(**{"model": CHAT, "input": "What is the capital of France?", "temperature": 0,
                                      "max_output_tokens": 60} | options)


@check
def response_answers():
    answer = respond(instructions="Be brief.", metadata={"k": "v"})
    assert "Paris" in answer.output_text and answer.status == "completed" and answer.model == CHAT
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer.instructions == "Be brief." and answer.metadata == {"k": "v"}


@check
def response_streams_in_order():
    kinds, numbers, text = [], [], ""
    for event in respond(stream=True):
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            assert event.response.output_text == text
    once = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert once == ["response.created", "response.in_progress", "response.output_item.added",
                    "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                    "response.content_part.done", "response.output_item.done", "response.completed"], once
    assert numbers == list(range(len(numbers))) and "Paris" in text


@check
def response_stream_helper():
    with client.responses.stream(model=CHAT, input="What is the capital of France?", temperature=0) as stream:
        for _ in stream:
            pass
        assert "Paris" in stream.get_final_response().output_text


@check
def response_is_continued_kept_and_deleted():
    first = respond(input="My name is Anna.")
    second = respond(input="What is my name?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == first.output_text
    items = client.responses.input_items.list(second.id)
    assert items.data[0].content[0].text == "What is my name?"
    client.responses.delete(first.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(first.id))
    error = raises(openai.NotFoundError, lambda: respond(previous_response_id=first.id))
    assert error.body["param"] == "previous_response_id"
    unkept = respond(store=False)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(unkept.id))


RESPONSE_TOOL = {"type": "function", "name": "get_weather", "description": "x", "parameters": WEATHER, "strict": False}


@check
def response_calls_tools():
    ask = {"role": "user", "content": "What is the weather in Paris?"}
    answer = respond(input=[ask], tools=[RESPONSE_TOOL], tool_choice="required", max_output_tokens=100)
    call = next(item for item in answer.output if item.type == "function_call")
    assert call.name == "get_weather" and "city" in json.loads(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temp": 21}'}
    follow = respond(input=[ask, *answer.output, output], tools=[RESPONSE_TOOL])
    assert follow.output_text
    chained = respond(input=[output], tools=[RESPONSE_TOOL], previous_response_id=answer.id)
    assert chained.output_text


@check
def response_streams_tool_calls():
    arguments, done = "", None
    for event in respond(input="What is the weather in Paris?", tools=[RESPONSE_TOOL], tool_choice="required", stream=True,
                         max_output_tokens=100):
        if event.type == "response.function_call_arguments.delta":
            arguments += event.delta
        if event.type == "response.function_call_arguments.done":
            done = event.arguments
    assert done == arguments and "city" in json.loads(done)


@check
def response_by_schema():
    answer = respond(text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}})
    assert list(json.loads(answer.output_text)) == ["zulu", "alpha"]


@check
def response_cut_off_is_incomplete():
    answer = respond(max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"


@check
def response_log_probabilities():
    answer = respond(include=["message.output_text.logprobs"], top_logprobs=2)
    assert answer.output[0].content[0].logprobs[0].top_logprobs


@check
def response_errors():
    for change, param in [({"input": []}, "input"), ({"input": 7}, "input"), ({"background": True}, "background"),
                          ({"tools": [{"type": "web_search"}]}, "tools[0]"), ({"temperature": "x"}, "temperature"),
                          ({"input": [{"role": "user"}]}, "input[0].content")]:
        status, answer = http_json("POST", "/v1/responses", {"model": CHAT, "input": "x"} | change)
        assert status == 400 and answer["error"]["param"] == param, (change, status, answer)
    for path in ("/responses", "/engines/v1/responses"):
        status, answer = http_json("POST", path, {"model": CHAT, "input": "Hello", "max_output_tokens": 3})
        assert status == 200, (path, answer)


@check
def unknown_path_is_an_error_in_shape():
    status, headers, text = http("POST", "/v1/no/such/path", {})
    assert status == 404 and json.loads(text)["error"]["message"], text


run("openai")
