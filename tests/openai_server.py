"""A server of our own on this machine that imitates OpenAI's interface, as vLLM has it."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def hashed(body: dict) -> dict:
    """A choice that depends on the model, the prompt and the seed."""
    words = f"{body['model']} {body['prompt']} {body['seed']}"
    return {"text": hashlib.sha256(words.encode()).hexdigest()[:8], "finish_reason": "stop"}


class Server(ThreadingHTTPServer):
    """Imitates vLLM: an answer is a hash of the prompt and the seed, or what `reply` makes of the request.

    `script` holds what to give first: statuses with headers, bytes to send instead of an answer in HTTP, or functions
    that answer by themselves.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str]] | bytes | Callable[[Handler], None]] = []
        self.reply: Callable[[dict], dict] = hashed
        self.asked: list[dict] = []
        self.keys: set[str | None] = set()
        self.paths: set[str] = set()
        self.choice: dict = {}
        self.list_models = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def give(self, status, answer, headers=None):
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if not self.server.list_models:
            return self.give(404, {"error": {"message": "no such path"}})
        return self.give(200, {"data": [{"id": "base"}, {"id": "power"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.keys.add(self.headers["Authorization"])
            self.server.paths.add(self.path)
            step = self.server.script.pop(0) if self.server.script else (200, {})
            if isinstance(step, tuple) and step[0] == 200:
                self.server.asked.append(body)
        if callable(step):
            return step(self)
        if isinstance(step, bytes):
            self.wfile.write(step)
            self.close_connection = True
            return None
        if step[0] != 200:
            return self.give(step[0], {"error": {"message": "not now\nreally"}}, step[1])
        return self.give(200, {"choices": [{**self.server.reply(body), **self.server.choice}]})


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that answers in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
