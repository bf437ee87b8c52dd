"""One file over http or https into a Part, continuing where it stopped. Knows nothing about hubs."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rsd_cli.registry.part import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

    from rsd_cli.registry.entries import ModelEntry
    from rsd_cli.registry.part import Part

CHUNK = 1 << 18
RETRIES = 2
PAUSE = 1.0
LONGEST_PAUSE = 10.0
STALL = 30.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
EXPLAINED = {
    401: "HTTP 401: log in (set HF_TOKEN)",
    403: "HTTP 403: access is not granted (accept the licence on the model's page, set HF_TOKEN)",
    404: "HTTP 404: there is no such file",
}


@dataclass(frozen=True)
class Address:
    """What to ask for. Secret headers don't follow a redirect to another host.

    `resumable`: what it gives never changes, so that a later run may go on where an earlier one stopped.
    """

    url: str
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout: float = 10.0
    resumable: bool = True


class _PassingError(Exception):
    """A failure that may be gone at the next try."""

    def __init__(self, reason: str, pause: float = PAUSE) -> None:
        super().__init__(reason)
        self.pause = pause


def download(address: Address, part: Part) -> None:
    """Fetch what is missing; a server that does not continue is started over."""
    resume = _may_continue(address, part.entry)
    for attempt in range(RETRIES + 1):
        try:
            return _attempt(address, part, resume=resume)
        except _PassingError as error:  # noqa: PERF203 - a retry
            part.close()
            if attempt == RETRIES:
                raise SourceError(str(error)) from None
            time.sleep(min(error.pause * 2**attempt, LONGEST_PAUSE))
            resume = resume or part.done > 0  # what this process wrote comes from this very address
    return None


def _may_continue(address: Address, entry: ModelEntry) -> bool:
    """Whether the bytes that an earlier run left are this address's too; a hash would tell if they are not."""
    return entry.sha256 is not None or (address.resumable and len(entry.sources) == 1)


def read_range(address: Address, start: int, length: int) -> bytes:
    """Some bytes of a file; raises SourceError if they don't come, also after some tries."""
    for attempt in range(RETRIES + 1):
        try:
            return _range(address, start, length)
        except _PassingError as error:  # noqa: PERF203 - a retry
            if attempt == RETRIES:
                raise SourceError(str(error)) from None
            time.sleep(min(error.pause * 2**attempt, LONGEST_PAUSE))
    raise AssertionError("the last try returns or raises")


def _range(address: Address, start: int, length: int) -> bytes:
    try:
        with _open(address, start, start + length - 1) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                raise SourceError("the server sends no parts of files")
            _offset(response, start)
            data: bytes = response.read(length)
    except urllib.error.HTTPError as error:
        if error.code in PASSING:
            raise _PassingError(f"HTTP {error.code}", _asked_pause(error.headers)) from None
        raise SourceError(EXPLAINED.get(error.code, f"HTTP {error.code}")) from None
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"the connection to {_host(address.url)} broke: {_plain(error)}") from None
    if len(data) < length:
        raise _PassingError(f"the connection ended after {len(data)} of {length} bytes")
    return data


def _attempt(address: Address, part: Part, *, resume: bool) -> None:
    offset = part.present if resume else 0
    if part.entry.size and offset >= part.entry.size:
        part.start_at(part.entry.size)  # complete; the hash decides
        return
    try:
        with _open(address, offset) as response:
            _copy(response, part, offset)
    except urllib.error.HTTPError as error:
        _explain(error, part)
    except urllib.error.URLError as error:
        raise SourceError(
            f"cannot reach {_host(address.url)}: {_plain(error.reason)}", network=True
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"the connection to {_host(address.url)} broke: {_plain(error)}") from None


def _open(address: Address, offset: int, last: int | None = None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "rsd", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address.url, headers=headers)  # noqa: S310 - the schema checks the scheme
    if offset or last is not None:
        request.add_header("Range", f"bytes={offset}-{'' if last is None else last}")
    for name, value in address.secret_headers.items():
        request.add_unredirected_header(name, value)
    opener = urllib.request.build_opener(_Http, _Https(context=_certificates()))
    response: http.client.HTTPResponse = opener.open(request, timeout=address.connect_timeout)
    return response


def _copy(response: http.client.HTTPResponse, part: Part, asked_offset: int) -> None:
    offset = _offset(response, asked_offset)
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdigit() else None
    if part.entry.size and total and total != part.entry.size:
        raise SourceError(f"has {total} bytes instead of {part.entry.size}")
    part.start_at(offset, total)
    while chunk := response.read(CHUNK):
        part.write(chunk)
    if part.total and part.done < part.total:
        raise _PassingError(f"the connection ended after {part.done} of {part.total} bytes")


def _offset(response: http.client.HTTPResponse, asked: int) -> int:
    """Where the answer starts: a server may ignore the range, and then sends the whole file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != asked:
        raise SourceError("answers with another range than asked for")
    return asked


def _explain(error: urllib.error.HTTPError, part: Part) -> None:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.discard()
        raise _PassingError("HTTP 416: the partial download does not fit") from None
    if error.code in PASSING:
        raise _PassingError(f"HTTP {error.code}", _asked_pause(error.headers)) from None
    raise SourceError(EXPLAINED.get(error.code, f"HTTP {error.code}")) from None


def _asked_pause(headers: Message) -> float:
    asked = str(headers.get("Retry-After", ""))
    return float(asked) if asked.isdigit() else PAUSE


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _plain(error: object) -> str:
    """The reason without its class and number."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _certificates() -> ssl.SSLContext:
    """The system's authorities, and Mozilla's for Pythons that come without."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


class _HttpConnection(http.client.HTTPConnection):
    """The time-out of the request is for connecting; data may pause longer."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(STALL)


class _HttpsConnection(http.client.HTTPSConnection):
    """As above."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(STALL)


class _Http(urllib.request.HTTPHandler):
    """Opens http with two time-outs."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    """Opens https with two time-outs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._authorities = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req, context=self._authorities)
