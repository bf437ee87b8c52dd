"""A web server on the loopback interface that serves one file and misbehaves on demand."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Site:
    """What the server does, and what it was asked."""

    content: bytes
    answers: list[int] = field(default_factory=list)  # status codes to give before it works
    cut_after: int | None = None  # bytes of the next answer, then the connection ends
    cuts: int = 1  # how many answers are cut
    ignore_range: bool = False
    no_length: bool = False  # the end of the connection is the end of the answer
    stall: float = 0.0
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)  # where a path's readers are sent
    tokens: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, site)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients hang up on purpose
    site.url = f"http://127.0.0.1:{server.server_address[1]}/m.gguf"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    asked = handler.headers.get("Range")
    site.ranges.append(asked)
    site.tokens.append(handler.headers.get("Authorization"))
    if handler.path in site.moved:
        handler.send_response(307)
        handler.send_header("Location", site.moved[handler.path])
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if site.answers:
        handler.send_response(site.answers.pop(0))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not site.ignore_range else 0
    body = site.content[start:]
    handler.send_response(206 if start else 200)
    if site.no_length:
        handler.send_header("Connection", "close")
    else:
        handler.send_header("Content-Length", str(len(body)))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
    handler.end_headers()
    cut, site.cuts = site.cut_after, site.cuts - 1
    if site.cuts <= 0:
        site.cut_after = None
    handler.wfile.write(body[:cut])
    handler.wfile.flush()
    time.sleep(site.stall)
    if cut is not None:
        handler.close_connection = True
