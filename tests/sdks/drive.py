"""Calls an upstream with one of the official Python SDKs, as an app would, and prints what the SDK understood.

    drive.py openai|anthropic|gemini BASE_URL KEY

A line of JSON a case, in the order of the cases. The models are those of crates/testkit/src/upstream/catalogue.rs.
Where the SDK is not installed the one line is {"missing": ".."}.
"""

import json
import sys

PROMPT = "What is the weather in Zürich today?"
SPLIT = ["stub-joined", "stub-trickle", "stub-inside-characters", "stub-inside-lines"]
REFUSED = ["stub-400", "stub-402", "stub-429", "stub-429-spend-limit", "stub-500", "stub-503", "stub-529"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


def tell(case, **said):
    print(json.dumps({"case": case, **said}), flush=True)


def refused(case, call, error_class):
    try:
        call()
    except error_class as error:
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        tell(case, error=type(error).__name__, status=status if isinstance(status, int) else None)
    else:
        tell(case, error=None)


def drive_openai(url, key):
    import openai

    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=20)
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]

    def ask(model, **options):
        messages = [{"role": "user", "content": PROMPT}]
        return client.chat.completions.create(model=model, messages=messages, **options)

    def plain(case, model, **options):
        answer = ask(model, **options)
        choice = answer.choices[0]
        calls = [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls or []]
        tell(case, id=answer.id, text=choice.message.content, calls=calls, finish=choice.finish_reason,
             input=answer.usage.prompt_tokens, output=answer.usage.completion_tokens)

    def streamed(case, model, **options):
        text, calls, finish, usage, identity = "", {}, None, None, None
        for chunk in ask(model, stream=True, stream_options={"include_usage": True}, **options):
            identity, usage = chunk.id, chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or []:
                    name, arguments = calls.get(call.index, ("", ""))
                    calls[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
        tell(case, id=identity, text=text, calls=[[name, json.loads(said)] for name, said in calls.values()],
             finish=finish, input=usage.prompt_tokens, output=usage.completion_tokens)

    plain("plain", "stub")
    plain("tools", "stub-tools", tools=tools)
    plain("thinking", "stub-thinking")
    plain("limit", "stub", max_completion_tokens=3)
    streamed("streamed", "stub")
    streamed("tools streamed", "stub-tools", tools=tools)
    streamed("thinking streamed", "stub-thinking")
    streamed("limit streamed", "stub", max_completion_tokens=3)
    for model in SPLIT:
        streamed(model, model)
    # The SDK's own accumulator of a stream checks more than the single chunks do.
    messages = [{"role": "user", "content": PROMPT}]
    options = {"model": "stub-tools", "messages": messages, "stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**options) as stream:
        final = stream.get_final_completion()
    calls = [[call.function.name, json.loads(call.function.arguments)] for call in final.choices[0].message.tool_calls]
    tell("accumulated", id=final.id, text=final.choices[0].message.content, calls=calls,
         finish=final.choices[0].finish_reason, input=final.usage.prompt_tokens, output=final.usage.completion_tokens)
    for model in REFUSED:
        refused(model, lambda model=model: ask(model), openai.APIStatusError)
    refused("error in stream", lambda: list(ask("stub-error-in-stream", stream=True)), openai.APIError)
    stranger = openai.OpenAI(base_url=url, api_key="another", max_retries=0)
    refused("another key", lambda: stranger.models.list(), openai.APIStatusError)
    vectors = client.embeddings.create(model="stub", input=["one two", "three"], dimensions=5)
    tell("embeddings", sizes=[len(vector.embedding) for vector in vectors.data], first=vectors.data[0].embedding[0],
         input=vectors.usage.prompt_tokens)
    tell("models", known=[model.id for model in client.models.list()], one=client.models.retrieve("stub").id)


def drive_anthropic(url, key):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)
    tools = [{"name": "get_weather", "input_schema": SCHEMA}]

    def options(model, most=1000, **others):
        return {"model": model, "max_tokens": most, "messages": [{"role": "user", "content": PROMPT}], **others}

    def told(case, message):
        of = lambda kind: [block for block in message.content if block.type == kind]
        usage = message.usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        tell(case, id=message.id, text="".join(block.text for block in of("text")),
             thinking="".join(block.thinking for block in of("thinking")),
             signatures=[block.signature for block in of("thinking")],
             calls=[[block.name, block.input] for block in of("tool_use")],
             finish=message.stop_reason, input=usage.input_tokens + cached, output=usage.output_tokens)

    def streamed(case, model, most=1000, **others):
        with client.messages.stream(**options(model, most, **others)) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        assert text == "".join(block.text for block in message.content if block.type == "text")
        told(case, message)

    told("plain", client.messages.create(**options("stub")))
    told("tools", client.messages.create(**options("stub-tools", tools=tools)))
    told("thinking", client.messages.create(**options("stub-thinking")))
    told("limit", client.messages.create(**options("stub", 3)))
    streamed("streamed", "stub")
    streamed("tools streamed", "stub-tools", tools=tools)
    streamed("thinking streamed", "stub-thinking")
    streamed("limit streamed", "stub", 3)
    for model in SPLIT:
        streamed(model, model)
    for model in REFUSED:
        refused(model, lambda model=model: client.messages.create(**options(model)), anthropic.APIStatusError)
    refused("error in stream", lambda: streamed("unreached", "stub-error-in-stream"), anthropic.APIError)
    stranger = anthropic.Anthropic(base_url=url, api_key="another", max_retries=0)
    refused("another key", lambda: stranger.messages.create(**options("stub")), anthropic.APIStatusError)
    counted = client.messages.count_tokens(model="stub", messages=[{"role": "user", "content": PROMPT}])
    tell("count", input=counted.input_tokens)


def drive_gemini(url, key):
    from google import genai
    from google.genai import errors, types

    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, timeout=20_000))
    tools = [types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather", parameters=SCHEMA)])]
    off = types.AutomaticFunctionCallingConfig(disable=True)
    with_tools = types.GenerateContentConfig(tools=tools, automatic_function_calling=off)
    limited = types.GenerateContentConfig(max_output_tokens=3)

    def told(case, chunks):
        parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts or []]
        usage, last = chunks[-1].usage_metadata, chunks[-1]
        output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        assert usage.total_token_count == usage.prompt_token_count + output
        tell(case, id=last.response_id, text="".join(part.text or "" for part in parts if not part.thought),
             thinking="".join(part.text or "" for part in parts if part.thought),
             calls=[[part.function_call.name, part.function_call.args] for part in parts if part.function_call],
             signatures=[part.thought_signature.decode() for part in parts if part.thought_signature],
             finish=last.candidates[0].finish_reason.value, input=usage.prompt_token_count, output=output)

    def plain(case, model, config=None):
        told(case, [client.models.generate_content(model=model, contents=PROMPT, config=config)])

    def streamed(case, model, config=None):
        told(case, list(client.models.generate_content_stream(model=model, contents=PROMPT, config=config)))

    plain("plain", "stub")
    plain("tools", "stub-tools", with_tools)
    plain("thinking", "stub-thinking")
    plain("limit", "stub", limited)
    streamed("streamed", "stub")
    streamed("tools streamed", "stub-tools", with_tools)
    streamed("thinking streamed", "stub-thinking")
    streamed("limit streamed", "stub", limited)
    for model in SPLIT:
        streamed(model, model)
    for model in REFUSED:
        refused(model, lambda model=model: plain("unreached", model), errors.APIError)
    refused("error in stream", lambda: streamed("unreached", "stub-error-in-stream"), errors.APIError)
    stranger = genai.Client(api_key="another", http_options=types.HttpOptions(base_url=url))
    ask = lambda: stranger.models.generate_content(model="stub", contents=PROMPT)
    refused("another key", ask, errors.APIError)
    tell("count", input=client.models.count_tokens(model="stub", contents=PROMPT).total_tokens)


if __name__ == "__main__":
    sdk, url, key = sys.argv[1:]
    try:
        {"openai": drive_openai, "anthropic": drive_anthropic, "gemini": drive_gemini}[sdk](url, key)
    except ModuleNotFoundError as absent:
        if absent.name.split(".")[0] not in ("openai", "anthropic", "google"):
            raise
        print(json.dumps({"missing": absent.name}))
