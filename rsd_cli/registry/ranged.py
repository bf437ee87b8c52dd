"""One file over http or https into a Part, continuing where it stopped. Knows nothing about hubs."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from rsd_cli.registry.part import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

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
    """What to ask for. Secret headers follow no redirect to another scheme, host or port.

    `origin` names content that never changes, so that a later run may go on where an earlier one of it stopped.
    """

    url: str
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout: float = 10.0
    origin: str = ""


class _PassingError(Exception):
    """A failure that may be gone at the next try."""

    def __init__(self, reason: str, pause: float = PAUSE) -> None:
        super().__init__(reason)
        self.pause = pause


def download(address: Address, part: Part) -> None:
    """Fetch what is missing; a server that does not continue is started over. Tries in vain are counted."""
    resume = _may_continue(address, part)
    furthest, in_vain = part.present if resume else 0, 0
    while True:
        try:
            return _attempt(address, part, resume=resume)
        except _PassingError as error:  # noqa: PERF203 - a retry
            part.close()
            in_vain = 1 if part.done > furthest else in_vain + 1
            if in_vain > RETRIES:
                raise SourceError(str(error)) from None
            time.sleep(min(error.pause * 2 ** (in_vain - 1), LONGEST_PAUSE))
            furthest = max(furthest, part.done)
            resume = resume or part.done > 0  # what this process wrote comes from this very address


def _may_continue(address: Address, part: Part) -> bool:
    """Whether the bytes that an earlier run left are this address's too; a hash would tell if they are not."""
    return part.entry.sha256 is not None or (address.origin != "" and part.is_of(address.origin))


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
        raise _explained(error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _broken(address.url, error) from None
    if len(data) < length:
        raise _PassingError(f"the connection ended after {len(data)} of {length} bytes")
    return data


def _attempt(address: Address, part: Part, *, resume: bool) -> None:
    offset = part.present if resume else 0
    if part.entry.size and offset >= part.entry.size:
        part.start_at(part.entry.size)  # complete; the hash decides
        return
    with _answer(address, offset, part) as response:
        _copy(address, response, part, offset)


def _answer(address: Address, offset: int, part: Part) -> http.client.HTTPResponse:
    try:
        return _open(address, offset)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.discard()
            raise _PassingError("HTTP 416: the partial download does not fit") from None
        raise _explained(error) from None
    except urllib.error.URLError as error:
        raise SourceError(
            f"cannot reach {_host(address.url)}: {_plain(error.reason)}", network=True
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _broken(address.url, error) from None


def _broken(url: str, error: Exception) -> _PassingError:
    return _PassingError(f"the connection to {_host(url)} broke: {_plain(error)}")


def _open(address: Address, offset: int, last: int | None = None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "rsd", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address.url, headers=headers)  # noqa: S310 - the schema checks the scheme
    if offset or last is not None:
        request.add_header("Range", f"bytes={offset}-{'' if last is None else last}")
    for name, value in address.secret_headers.items():
        request.add_unredirected_header(name, value)
    opener = urllib.request.build_opener(_Http, _Https(context=_certificates()), _Redirects)
    response: http.client.HTTPResponse = opener.open(request, timeout=address.connect_timeout)
    return response


def _copy(address: Address, response: http.client.HTTPResponse, part: Part, asked_offset: int) -> None:
    offset = _offset(response, asked_offset)
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdigit() else None
    if part.entry.size and total and total != part.entry.size:
        raise SourceError(f"has {total} bytes instead of {part.entry.size}")
    part.start_at(offset, total)
    if address.origin and not offset:
        part.note_origin(address.origin)
    while chunk := _chunk(response):
        part.write(chunk)
    if part.total and part.done < part.total:
        short = _PassingError(f"the connection ended after {part.done} of {part.total} bytes")
        if total is None and not offset:
            part.start_at(0)  # perhaps all of another file, a proxy's page: no source may go on from it
        raise short


def _chunk(response: http.client.HTTPResponse) -> bytes:
    """Only what comes over the network may be tried again: what goes wrong on our side stays apart."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(response.url, error) from None


def _offset(response: http.client.HTTPResponse, asked: int) -> int:
    """Where the answer starts: a server may ignore the range, and then sends the whole file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != asked:
        raise SourceError("answers with another range than asked for")
    return asked


def _explained(error: urllib.error.HTTPError) -> _PassingError | SourceError:
    if error.code in PASSING:
        return _PassingError(f"HTTP {error.code}", _asked_pause(error.headers))
    return SourceError(EXPLAINED.get(error.code, f"HTTP {error.code}"))


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


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Takes secret headers along within one origin: the hub sends a renamed repository's readers on to itself."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and _origin(new.full_url) == _origin(req.full_url):
            new.unredirected_hdrs = dict(req.unredirected_hdrs)
        return new


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
