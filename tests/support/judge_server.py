"""A judge's HTTP endpoint in both styles, that can be told to misbehave. A fake of the provider, never of our code."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWERS = re.compile(r"<(first|second)-answer-(\w+)>\n(.*?)\n</\1-answer-\2>", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """One request as it came: the whole text, the two answers, the headers."""

    number: int
    text: str
    first: str
    second: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Reply:
    """What the server does: `text` as the model's words, or raw `raw`; `cut` sends half; `stall_s` waits first."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: bool = False
    stall_s: float = 0.0
    usage: tuple[int, int] | None = (100, 10)


Manner = Callable[[Asked], Reply]


@dataclass
class Server:
    url: str
    manner: Manner
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def verdict(choice: str) -> Reply:
    return Reply(json.dumps({"verdict": choice}))


def fair(asked: Asked) -> Reply:
    """Prefers the answer with more of the word `good`."""
    first, second = asked.first.count("good"), asked.second.count("good")
    return verdict("first" if first > second else "second" if second > first else "tie")


def rate_limiting(manner: Manner, *, every: int, wait_s: int) -> tuple[Manner, list[int]]:
    """Answers 429 to one request in `every`, and to all that come before the time it named; notes those."""
    until, too_early = [0.0], []

    def limited(asked: Asked) -> Reply:
        now = time.monotonic()
        if asked.number % every == 0:
            until[0] = now + wait_s
            return Reply(status=429, headers={"retry-after": str(wait_s)})
        if now < until[0]:
            too_early.append(asked.number)
        return manner(asked)

    return limited, too_early


@contextmanager
def serving(manner: Manner) -> Iterator[Server]:
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
                asked = _asked(len(server.asked), body, dict(self.headers))
                server.asked.append(asked)
            try:
                self._answer(server.manner(asked))
            finally:
                with server.lock:
                    server.at_once -= 1

        def _answer(self, reply: Reply) -> None:
            time.sleep(reply.stall_s)
            data = reply.raw if reply.raw is not None else json.dumps(_body(self.path, reply)).encode()
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if reply.cut else data)
            self.close_connection = reply.cut

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """A client that gave up on a stalled reply is no news."""

    http = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}", manner)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _asked(number: int, body: dict[str, Any], headers: dict[str, str]) -> Asked:
    content = next(turn["content"] for turn in body["messages"] if turn["role"] == "user")
    text = content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)
    answers = {place: answer for place, _, answer in ANSWERS.findall(text)}
    lower = {name.lower(): value for name, value in headers.items()}
    return Asked(number, text, answers["first"], answers["second"], lower, body)


def _body(path: str, reply: Reply) -> dict[str, Any]:
    num_in, num_out = reply.usage or (0, 0)
    if path.endswith("/chat/completions"):
        usage = {"prompt_tokens": num_in, "completion_tokens": num_out}
        body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
    else:
        usage = {"input_tokens": num_in - 40, "cache_read_input_tokens": 40, "output_tokens": num_out}
        body = {"content": [{"type": "text", "text": reply.text}]}
    return body | ({"usage": usage} if reply.usage else {})
