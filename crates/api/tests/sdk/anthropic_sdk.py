"""The anthropic SDK, unmodified, through everything that Pontoon's Anthropic dialect has."""

import json

import anthropic

from check import CHAT, KEY, PIXEL, URL, VISION, WEATHER, check, http_json, need, raises, run

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {"name": "get_weather", "description": "Tells the weather", "input_schema": WEATHER}
OTHER = {"name": "get_time", "description": "Tells the time", "input_schema": WEATHER}
SCHEMA = {"type": "object", "properties": {"zulu": {"enum": ["red", "blue"]}, "alpha": {"enum": [1, 2]}},
          "required": ["zulu", "alpha"], "additionalProperties": False}
# Newer SDKs know no temperature, the service does.
COLD = {"temperature": 0}
HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": KEY}


def make(base):
    return anthropic.Anthropic(base_url=base, api_key=KEY, max_retries=0, timeout=120)


client = make(URL)


def ask(**options):
    return client.messages.create(**{"model": CHAT, "max_tokens": 60, "messages": CAPITAL, "extra_body": COLD} | options)


def texts(message):
    return "".join(block.text for block in message.content if block.type == "text")


@check
def message_answers():
    message = ask()
    assert "Paris" in texts(message), message
    assert message.id.startswith("msg_") and message.type == "message" and message.role == "assistant"
    assert message.model == CHAT and message.stop_reason == "end_turn" and message.stop_sequence is None
    usage = message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens > 0 and usage.output_tokens > 0


@check
def both_paths_answer():
    message = make(f"{URL}/anthropic").messages.create(model=CHAT, max_tokens=20, messages=CAPITAL)
    assert message.content


@check
def system_and_blocks_are_taken():
    message = ask(system=[{"type": "text", "text": "You answer."}], metadata={"user_id": "u"}, messages=[
        {"role": "user", "content": [{"type": "text", "text": "My name is Anna.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Anna.", "signature": "x"},
                                          {"type": "text", "text": "Hello, Anna!"}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain",
                                                                     "data": "A note."}},
                                     {"type": "text", "text": "What is my name?"}]}])
    assert texts(message)
    assert texts(ask(system="You answer."))


@check
def events_come_in_order():
    kinds = [event.type for event in ask(stream=True)]
    once = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert once == ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
                    "message_stop"], once


@check
def stream_helper_accumulates():
    with client.messages.stream(model=CHAT, max_tokens=60, extra_body=COLD, messages=CAPITAL) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "Paris" in text and texts(final) == text == texts(ask())
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 0


@check
def prompt_is_counted_at_the_start():
    start = next(iter(ask(stream=True, system="A system prompt that makes it a little longer.")))
    usage = start.message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens > 5, usage


@check
def stop_sequence_is_named():
    message = ask(stop_sequences=["zzz", "Par"])
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == "Par", message
    assert "Par" not in texts(message)
    with client.messages.stream(model=CHAT, max_tokens=60, extra_body=COLD, messages=CAPITAL, stop_sequences=["Par"]) as s:
        final = s.get_final_message()
    assert final.stop_reason == "stop_sequence" and final.stop_sequence == "Par"


@check
def max_tokens_ends_the_answer():
    message = ask(max_tokens=3)
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 3


@check
def tool_use_and_its_result():
    message = ask(messages=ASK_WEATHER, tools=[TOOL], tool_choice={"type": "any"}, max_tokens=100)
    assert message.stop_reason == "tool_use", message
    use = next(block for block in message.content if block.type == "tool_use")
    assert use.name == "get_weather" and use.id and "city" in use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": '{"temp": 21}'}]}
    follow = ask(messages=[*ASK_WEATHER, {"role": "assistant", "content": message.content},
                           {"role": "user", "content": [result]}], tools=[TOOL])
    assert texts(follow)
    failed = result | {"is_error": True, "content": "no such city"}
    assert ask(messages=[*ASK_WEATHER, {"role": "assistant", "content": message.content},
                         {"role": "user", "content": [failed]}], tools=[TOOL]).content


@check
def tool_use_streams():
    with client.messages.stream(model=CHAT, max_tokens=100, extra_body=COLD, messages=ASK_WEATHER, tools=[TOOL],
                                tool_choice={"type": "any"}) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    use = next(block for block in final.content if block.type == "tool_use")
    assert json.loads("".join(pieces)) == use.input and "city" in use.input
    assert final.stop_reason == "tool_use"


@check
def named_tool_is_the_one_called():
    message = ask(messages=ASK_WEATHER, tools=[TOOL, OTHER], tool_choice={"type": "tool", "name": "get_time"},
                  max_tokens=100)
    assert [block.name for block in message.content if block.type == "tool_use"] == ["get_time"], message
    error = raises(anthropic.BadRequestError, lambda: ask(tools=[TOOL], tool_choice={"type": "tool", "name": "nobody"}))
    assert "nobody" in str(error)


@check
def answer_by_schema():
    message = ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert list(json.loads(texts(message))) == ["zulu", "alpha"]


@check
def thinking_is_taken():
    for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}, {"type": "adaptive"}):
        assert ask(thinking=thinking, max_tokens=2000).content


@check
def tokens_are_counted():
    short = client.messages.count_tokens(model=CHAT, messages=CAPITAL)
    long = client.messages.count_tokens(model=CHAT, messages=CAPITAL, system="Some more words.", tools=[TOOL])
    assert 0 < short.input_tokens < long.input_tokens
    usage = ask().usage
    assert short.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


@check
def image_is_seen():
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    assert ask(model=need(VISION, "vision"), messages=[{"role": "user", "content": content}]).content


@check
def image_from_the_network_is_refused():
    content = [{"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}}]
    error = raises(anthropic.BadRequestError, lambda: ask(messages=[{"role": "user", "content": content}]))
    assert "not fetched" in str(error)


@check
def models_are_listed():
    names = [model.id for model in client.models.list()]
    assert CHAT in names, names
    assert client.models.retrieve(CHAT).id == CHAT


@check
def unknown_model_is_not_found():
    error = raises(anthropic.NotFoundError, lambda: ask(model="ai/there-is-no-such-model"))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "not_found_error", error.body
    assert "there-is-no-such-model" in error.body["error"]["message"] and error.body["request_id"]


@check
def bad_values_are_named():
    cases = [
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": None}, "max_tokens"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0]"),
        ({"temperature": "hot"}, "temperature"), ({"system": 7}, "system"), ({"tools": [{}]}, "tools[0].name"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"), ({"stop_sequences": ["x"] * 65}, "stop_sequences"),
    ]
    for change, named in cases:
        body = {"model": CHAT, "max_tokens": 10, "messages": CAPITAL} | change
        status, answer = http_json("POST", "/v1/messages", body, HEADERS)
        assert status == 400, (change, status, answer)
        assert answer["type"] == "error" and answer["error"]["type"] == "invalid_request_error", answer
        assert named in answer["error"]["message"], (change, answer)


@check
def cancelled_stream_frees_its_place():
    for _ in range(8):
        with client.messages.stream(model=CHAT, max_tokens=4000, extra_body={"temperature": 1}, messages=CAPITAL) as stream:
            next(iter(stream))
    assert "Paris" in texts(ask())


run("anthropic")
