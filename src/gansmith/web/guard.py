"""Who may ask what: hosts, origins, content types, the token, sizes, rates, and the headers of every answer.

A page of another site can make a browser send requests here. None of them gets past `refusal`: the Host must be a name
of this server (so no name that was pointed at 127.0.0.1), a request of another origin is refused, and whatever changes
something needs a content type that a foreign page may not send without asking first, which is never granted.
"""

import asyncio
import hmac
import html
import ipaddress
import json
import logging
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "gansmith_token"
MAX_JSON_BYTES = 2**18
MAX_UPLOAD_BYTES = 2**30
BODY_S = 30.0  # a JSON body must have arrived by then; so long may an upload pause
# Requests a second and in a burst, of one client: what makes the machine work, and all the rest.
RATES = {"work": (60.0, 120.0), "other": (400.0, 800.0)}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERY_ADDRESS = ("0.0.0.0", "::")
# Pages of a notebook on this machine, which may show the studio in a frame.
NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*")
_BODY_TYPES = ("application/json", "application/octet-stream")

logger = logging.getLogger("gansmith")


@dataclass
class Guard:
    """An ASGI application around another one that lets only proper requests through.

    Attributes:
        app: what is protected.
        host: the address it listens on.
        names: others that it is reached by, as through a reverse proxy.
        token: what a client must show; empty on loopback.
        end_streams: ends the answers of `app` that have no end of their own.
        clients: the rate limiter's state, by client and kind.
    """

    app: ASGIApp
    host: str
    names: tuple[str, ...] = ()
    token: str = ""
    end_streams: Callable[[], None] = lambda: None
    clients: "OrderedDict[tuple[str, str], tuple[float, float]]" = field(default_factory=OrderedDict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "range" in headers and not _is_range(headers["range"]):  # it is ignored, as HTTP has it
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
        frames = () if self.token else NOTEBOOKS
        sender = Sender(send, frames, "no-store" if scope["path"].startswith("/api/") else "no-cache")
        refused = self.refusal(scope, headers)
        if refused is not None:
            is_page = headers.get("sec-fetch-mode") == "navigate" or headers.get("accept", "").startswith("text/html")
            await answer(sender, *refused, is_page=is_page)
        elif self.token and self._is_login(scope):
            await login(sender, scope, self.token)
        else:
            await self._pass_on(scope, Reader(receive, body_limit(scope), is_upload=is_upload(scope)), sender)

    async def _pass_on(self, scope: Scope, reader: "Reader", sender: "Sender") -> None:
        try:
            await self.app(scope, reader, sender)
        except Exception:  # which has been answered; it is shown in the server's terminal, and not outside
            logger.exception("%s %s failed", scope["method"], scope["path"])

    def refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and sentence for a request that is not let through; None for one that is."""
        if not self._is_own_host(headers.get("host", "")):
            sentence = "this is not a name of this server; open the address it printed, or start it with --name"
            return HTTPStatus.MISDIRECTED_REQUEST, sentence
        if not self._is_own_origin(scope, headers):
            return HTTPStatus.FORBIDDEN, "requests from pages of other sites are not answered"
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if kind not in _BODY_TYPES:
                return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {' or '.join(_BODY_TYPES)}"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > body_limit(scope):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have {body_limit(scope):,} bytes at most"
        if not self._has_token(scope, headers):
            return HTTPStatus.UNAUTHORIZED, "open the address with the token that the server printed"
        if not self._is_within_rate(scope):
            return HTTPStatus.TOO_MANY_REQUESTS, "too many requests at once; wait a second"
        return None

    def _is_own_host(self, authority: str) -> bool:
        name = host_name(authority)
        is_own = name in (*own_hosts(self.host), *self.names)
        return is_own or (self.host in EVERY_ADDRESS and _is_of_this_machine(name))

    def _is_own_origin(self, scope: Scope, headers: Headers) -> bool:
        """Return whether a request comes from this server's own pages, from a program, or opens a page by a link."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None:
            scheme, _, authority = origin.partition("://")
            is_own = authority == headers.get("host") or host_name(authority) in self.names
            if scheme not in ("http", "https") or not is_own:
                return False
        is_page = headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith("/api/")
        return site in (None, "same-origin", "none") or is_page

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if not self.token:
            return True
        shown = HTTPConnection(scope).cookies.get(cookie_of(scope), "")
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown_by = (shown, bearer if scheme.lower() == "bearer" else "")
        return self._is_login(scope) or any(_same(text, self.token) for text in shown_by)

    def _is_login(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        is_page = scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/api/")
        return is_page and _same(given[0], self.token)

    def _is_within_rate(self, scope: Scope) -> bool:
        """Take one request from the client's bucket of its kind; False where it is empty."""
        is_light = scope["method"] in ("GET", "HEAD") or is_upload(scope)  # a folder has many pictures
        kind = "other" if is_light and "/sample" not in scope["path"] else "work"
        key = ((scope.get("client") or ("", 0))[0], kind)
        per_s, burst = RATES[kind]
        now = time.monotonic()
        left, at = self.clients.pop(key, (burst, now))
        left = min(burst, left + (now - at) * per_s)
        self.clients[key] = (max(0.0, left - 1), now)
        if len(self.clients) > 1024:
            self.clients.popitem(last=False)
        return left >= 1


def own_hosts(host: str) -> tuple[str, ...]:
    """Return what the Host header may say of a server on `host`, at any port; none where it listens on every address.

    The port may be another one where a tunnel leads here. Only names keep other sites out.
    """
    if host in EVERY_ADDRESS:
        return ()
    name = f"[{host}]" if ":" in host else host.lower()
    return (*_LOOPBACK, name) if is_loopback(host) else (name,)


def host_name(authority: str) -> str:
    """Return the name or address of a host, which a port may follow, in lower case; "" where it is neither."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\s:\[\]@/]+)(:\d*)?", authority.lower())
    return found[1] if found else ""


def is_loopback(host: str) -> bool:
    """Return whether a server on this host can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_of_this_machine(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name in ("localhost", socket.gethostname().lower())
    return True


def _is_range(text: str) -> bool:
    """Return whether a Range header asks for one run of bytes."""
    found = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", text)
    return found is not None and any(found.groups()) and not (all(found.groups()) and int(found[1]) > int(found[2]))


def _same(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def body_limit(scope: Scope) -> int:
    """Return how many bytes a request's body may have."""
    return MAX_UPLOAD_BYTES if is_upload(scope) else MAX_JSON_BYTES


def is_upload(scope: Scope) -> bool:
    """Return whether a request sends a file."""
    path: str = scope["path"]
    return scope["method"] == "PUT" and path.startswith("/api/v1/uploads/")


class TooLarge(Exception):
    """A body that goes on beyond its limit."""


@dataclass
class Reader:
    """Passes on a request's body up to a number of bytes: all of it within a time, or each part of an upload."""

    receive: Receive
    limit: int
    is_upload: bool = False
    deadline: float | None = None
    seen: int = 0
    is_complete: bool = False

    async def __call__(self) -> Message:
        if self.is_complete:  # what comes now is the end of the connection, which may be far off
            return await self.receive()
        if self.deadline is None or self.is_upload:
            self.deadline = asyncio.get_running_loop().time() + BODY_S
        async with asyncio.timeout_at(self.deadline):
            message = await self.receive()
        self.seen += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self.seen > self.limit:
            raise TooLarge(f"the body may have {self.limit:,} bytes at most")
        return message


@dataclass
class Sender:
    """Passes on an answer with the headers that every one carries."""

    send: Send
    frames: tuple[str, ...]
    caching: str = "no-store"  # where an answer does not say

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in secure_headers(self.frames).items():
                headers[name] = value
            headers.setdefault("cache-control", self.caching)
        await self.send(message)


def secure_headers(frames: tuple[str, ...]) -> dict[str, str]:
    """Return headers that let a page load from here alone, run no inline script, and be framed by nobody else."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self' 'unsafe-inline'",  # the chart library sets style attributes
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": " ".join(frames) or "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }


def cookie_of(scope: Scope) -> str:
    """Return the name of the cookie for this server: browsers send cookies of one host to all of its ports."""
    return f"{COOKIE}_{(scope.get('server') or ('', 0))[1]}"


async def answer(send: Sender, status: int, sentence: str, *, is_page: bool = False) -> None:
    """Answer with a status and one sentence, as JSON or as a page."""
    title = HTTPStatus(status).phrase
    kind, body = "application/json", json.dumps({"error": {"kind": title, "message": sentence}}).encode()
    if is_page:
        page = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{html.escape(sentence)}</p>"
        kind, body = "text/html; charset=utf-8", page.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", b"1")] if status == HTTPStatus.TOO_MANY_REQUESTS else []
    headers += [(b"connection", b"close")] if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else []
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def login(send: Sender, scope: Scope, token: str) -> None:
    """Keep the token in a cookie that scripts cannot read, and open the page without it in the address."""
    cookie = f"{cookie_of(scope)}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"
    given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = urlencode([(name, value) for name, value in given if name != "token"])
    # a path on this server, whatever was asked for
    place = f"/{quote(scope['path'].lstrip('/'))}" + (f"?{query}" if query else "")
    headers = [
        (b"location", place.encode()),
        (b"set-cookie", cookie.encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.SEE_OTHER), "headers": headers})
    await send({"type": "http.response.body", "body": b""})
