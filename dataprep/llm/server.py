"""A deterministic server that speaks the wire protocol: chat completions, files, batches.

There is no language model in it: rules (plain functions, one a template) answer. Tests and
demonstrations use it through the real ``openai`` client, so that what is shown of retries,
batches and kills is shown on the protocol itself. It counts what each request cost.

    python -m dataprep.llm.server --rules dataprep.rewrite.stand_in:RULES --port 8123
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dataprep.llm.faults import Faults
from dataprep.llm.server_state import Rule, ServerState, error_body, template_of

__all__ = ["Faults", "LocalServer", "Rule", "ServerState", "main"]


class _Handler(BaseHTTPRequestHandler):
    """Routes. The server object carries ``state`` and ``key``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _send(self, status: int, data: bytes | Mapping[str, Any], **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _missing(self, what: str) -> None:
        self._send(404, error_body(f"No such {what}", "not_found"))

    def _route(self) -> tuple[list[str], dict[str, str]]:
        """Path below ``/v1`` in parts, and the query."""
        url = urlsplit(self.path)
        parts = [part for part in url.path.split("/") if part]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        return parts[1:] if parts[:1] == ["v1"] else ["?"], query

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        parts, query = self._route()
        state = self.server.state
        state.called(f"{self.command} /{parts[0]}")
        wanted = self.server.key
        if wanted is not None and self.headers.get("Authorization") != f"Bearer {wanted}":
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            self._send(
                401, error_body(f"Incorrect API key provided: {given}", "invalid_api_key")
            )
            return
        match (self.command, *parts):
            case ("POST", "chat", "completions"):
                self._complete(json.loads(data))
            case ("POST", "files"):
                self._upload(data)
            case ("DELETE", "files", name):
                if state.files.pop(name, None) is None:
                    self._missing(f"File object: {name}")
                else:
                    self._send(200, {"id": name, "object": "file", "deleted": True})
            case ("GET", "files", name, "content"):
                if name in state.files:
                    self._send(200, state.files[name][1])
                else:
                    self._missing(f"File object: {name}")
            case ("POST", "batches"):
                asked = json.loads(data)
                batch = state.make_batch(asked["input_file_id"], asked.get("metadata") or {})
                if batch is None:
                    message = f"No such File object: {asked['input_file_id']}"
                    self._send(400, error_body(message, None))
                else:
                    self._send(200, state.show(batch))
            case ("GET", "batches"):
                self._send(200, state.list_batches(int(query.get("limit", 20)), query.get("after")))
            case ("GET", "batches", name):
                if name in state.batches:
                    self._send(200, state.show(state.batches[name]))
                else:
                    self._missing(f"Batch: {name}")
            case ("GET", "models"):
                self._send(200, {"object": "list", "data": []})
            case _:
                self._missing(f"route: {self.command} {self.path}")

    def _complete(self, body: dict[str, Any]) -> None:
        state, faults = self.server.state, self.server.state.faults
        fits, headers = state.limit()
        name = state.name_of(body)
        quiet = template_of(body) == "feature_test"
        fault = None if quiet else faults.passing(name, state.attempt("one", name))
        if not fits or fault == "rate_429":
            wait = {"retry_after": f"{faults.retry_after_s}"}
            message = "Rate limit reached for requests"
            self._send(429, error_body(message, "rate_limit_exceeded", "requests"),
                       **headers, **wait)  # fmt: skip
            return
        if fault == "error_500":
            self._send(500, error_body("internal error", None, "server_error"), **headers)
            return
        status, answer = state.complete(body)
        time.sleep(faults.timeout_s if fault == "timeout" else faults.latency_s)
        data = json.dumps(answer).encode()
        if fault == "bad_body":
            data = data[: len(data) // 2]
        self._send(status, data, **headers)

    def _upload(self, data: bytes) -> None:
        kind = self.headers.get("Content-Type", "")
        boundary = b"--" + kind.split("boundary=")[-1].strip('"').encode()
        for part in data.split(boundary):
            head, found, content = part.partition(b"\r\n\r\n")
            if found and b'name="file"' in head:
                name = head.split(b'filename="')[-1].split(b'"')[0].decode()
                content = content.removesuffix(b"\r\n")
                identity = self.server.state.add_file(name, content)
                described = {
                    "id": identity, "object": "file", "bytes": len(content), "created_at": 0,
                    "filename": name, "purpose": "batch", "status": "processed",
                }  # fmt: skip
                self._send(200, described)
                return
        self._send(400, error_body("no file in the form", None))

    def do_GET(self) -> None:
        """Answer."""
        self._guarded()

    def do_POST(self) -> None:
        """Answer."""
        self._guarded()

    def do_DELETE(self) -> None:
        """Answer."""
        self._guarded()

    def _guarded(self) -> None:
        try:
            self._handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client is gone
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._send(400, error_body(f"cannot be read: {error!r}", None))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    state: ServerState
    key: str | None

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it can be cut."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End every connection."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed leave broken connections."""


class LocalServer:
    """The server, in a thread of this process; a context manager.

    Args:
        rules: answers by template: the name of the request's schema, ``""`` for plain text.
        faults: what it does wrong.
        key: the only API key that it takes; any when None.
        port: on 127.0.0.1; a free one when 0.
        state: what an earlier server knew (files, batches, costs), to go on with.

    Attributes: ``base_url``, for the client; ``state``, with ``paid`` and ``calls``.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        faults: Faults | None = None,
        *,
        key: str | None = None,
        port: int = 0,
        state: ServerState | None = None,
    ) -> None:
        self.state = state or ServerState(rules, faults or Faults())
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.state, self._http.key = self.state, key
        self.port: int = self._http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> LocalServer:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening and cut every connection, as a server that dies."""
        self._http.shutdown()
        self._http.server_close()
        self._http.cut()
        self._thread.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load_rules(names: Sequence[str]) -> dict[str, Rule]:
    """Rules from ``module:NAME`` (dicts of rules by template), joined.

    Raises ``ValueError`` when there is no such module or name.
    """
    rules: dict[str, Rule] = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            rules |= getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"--rules {name}: {error}; accepted: module:NAME of a dict of rules"
            ) from None
    return rules


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dataprep.llm.server", description=__doc__)
    parser.add_argument("--port", type=int, default=8123, help="on 127.0.0.1 (default %(default)s)")
    parser.add_argument(
        "--rules", action="append", default=[], metavar="MODULE:NAME",
        help="dict of rules by template; may be repeated",
    )  # fmt: skip
    names = [each.name for each in fields(Faults) if each.type == "float"]
    for name in names:
        default = getattr(Faults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default)
    arguments = parser.parse_args(argv)
    faults = Faults(**{name: getattr(arguments, name) for name in names})
    try:
        server = LocalServer(load_rules(arguments.rules), faults, port=arguments.port)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background ignores one
        signal.signal(number, lambda *_: ended.set())
    with server:
        print(f"{server.base_url} answers by fixed rules (no language model); Ctrl-C ends it")
        ended.wait()
        print(f"{sum(server.state.paid.values())} answers given")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
