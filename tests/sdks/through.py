"""Drives one official SDK through the gateway, unchanged but for its base URL and key. Prints a JSON object a case.

Usage: through.py openai|anthropic|gemini <address of the gateway> <API key>
"""

import json
import sys

OWN = {"openai": "gpt-5.4-mini", "anthropic": "claude-sonnet-5", "gemini": "gemini-2.5-flash"}


def tell(case, **said):
    print(json.dumps({"case": case, **said}))


def refused(case, ask):
    try:
        ask()
        tell(case, error=None)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is what is looked at
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        tell(case, error=type(error).__name__, status=status)


def openai(address, key):
    from openai import OpenAI

    def client(key):
        return OpenAI(base_url=f"{address}/v1", api_key=key)

    def ask(model, client=client(key), **more):
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], **more)

    for name, model in OWN.items():
        answer = ask(model)
        tell(f"plain {name}", text=answer.choices[0].message.content, output=answer.usage.completion_tokens)
        chunks = list(ask(model, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        tell(f"streamed {name}", text=text, output=chunks[-1].usage.completion_tokens)
    refused("unknown model", lambda: ask("no-such-model"))
    refused("another key", lambda: ask(OWN["openai"], client("sk_live_wrong")))


def anthropic(address, key):
    from anthropic import Anthropic

    def client(key):
        return Anthropic(base_url=address, api_key=key)

    def asked(model):
        return {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "Hi"}]}

    ours = client(key)
    for name, model in OWN.items():
        answer = ours.messages.create(**asked(model))
        tell(f"plain {name}", text=answer.content[0].text, output=answer.usage.output_tokens)
        with ours.messages.stream(**asked(model)) as stream:
            text = "".join(stream.text_stream)
            tell(f"streamed {name}", text=text, output=stream.get_final_message().usage.output_tokens)
    refused("unknown model", lambda: ours.messages.create(**asked("no-such-model")))
    refused("another key", lambda: client("sk_live_wrong").messages.create(**asked(OWN["anthropic"])))


def gemini(address, key):
    from google import genai

    def client(key):
        return genai.Client(api_key=key, http_options={"base_url": address})

    ours = client(key)
    for name, model in OWN.items():
        answer = ours.models.generate_content(model=model, contents="Hi")
        tell(f"plain {name}", text=answer.text, output=answer.usage_metadata.candidates_token_count)
        chunks = list(ours.models.generate_content_stream(model=model, contents="Hi"))
        text = "".join(chunk.text or "" for chunk in chunks)
        tell(f"streamed {name}", text=text, output=chunks[-1].usage_metadata.candidates_token_count)
    refused("unknown model", lambda: ours.models.generate_content(model="no-such-model", contents="Hi"))
    # Stored in a variable, because an unreferenced client closes itself during its request.
    other = client("sk_live_wrong")
    refused("another key", lambda: other.models.generate_content(model=OWN["gemini"], contents="Hi"))


if __name__ == "__main__":
    try:
        {"openai": openai, "anthropic": anthropic, "gemini": gemini}[sys.argv[1]](*sys.argv[2:])
    except ModuleNotFoundError as missing:
        print(json.dumps({"missing": missing.name}))
