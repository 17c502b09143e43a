"""Requests to one of several registries, over the standard library: bounded in time, in size and in number."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from ottla._errors import ConfigError
from ottla.schema_registry._errors import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryAuthError,
    RegistryError,
    RegistryUnavailableError,
    SchemaNotFoundError,
)

MAX_RESPONSE = 16 << 20
"""Bytes of a response. The largest schemas that registries take have 1 MB, and their text grows when it is quoted."""

MAX_CONNECTIONS = 4
"""Requests of a client at once. What is known is not asked for: it is after a start and in an outage that many threads ask,
and that is when a registry can do with few."""

BACKOFF = 0.1
MAX_BACKOFF = 2.0

ROUNDS = 2
"""Requests of the longest kind, to each URL, that all attempts may take together: as many times `timeout`."""

ACCEPT = "application/vnd.schemaregistry.v1+json"


class Auth(Protocol):
    """Anything that gives the header `Authorization`. It is asked for each request, and must not wait for long."""

    def authorization(self) -> str: ...


class Basic:
    """A user and a password, also an API key and its secret."""

    def __init__(self, user: str, password: str) -> None:
        if ":" in user:
            raise ConfigError("a user of basic authentication has no ':' in its name")
        self._header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def authorization(self) -> str:
        return self._header

    def __repr__(self) -> str:
        return "Basic(...)"

    def __reduce__(self) -> Any:
        raise TypeError("credentials are not pickled")


class Bearer:
    """A token, or a function that gives the one that is valid now."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._token = token

    def authorization(self) -> str:
        token: object = self._token if isinstance(self._token, str) else self._token()
        if not isinstance(token, str):
            raise RegistryAuthError(
                f"the function of Bearer gave {type(token).__name__}, and not a str", advice="have it give the token"
            )
        return f"Bearer {token}"

    def __repr__(self) -> str:
        return "Bearer(...)"

    def __reduce__(self) -> Any:
        raise TypeError("credentials are not pickled")


class _Endpoint:
    """A registry's address, without what is secret in it."""

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            # It is not repeated: there may be a password in it.
            raise ConfigError("the URL of a schema registry cannot be read") from None
        if parts.scheme not in ("http", "https") or not host or not _is_host(host) or parts.query or parts.fragment:
            raise ConfigError(
                "the URL of a schema registry is not like http://HOST:PORT or https://HOST:PORT/PATH",
                advice="write urls='http://localhost:8081', or a list of such",
            )
        if not _PATH.fullmatch(parts.path):
            raise ConfigError(
                "the path of the URL of a schema registry has characters that no path has",
                advice="write %20 for a space, and so on",
            )
        self.secure = parts.scheme == "https"
        self.host = host
        self.port = port if port is not None else (443 if self.secure else 80)
        self.path = parts.path.rstrip("/")
        self.auth: Auth | None = None
        if parts.username is not None:
            unquote = urllib.parse.unquote
            self.auth = Basic(unquote(parts.username), unquote(parts.password or ""))
        shown = f"[{host}]" if ":" in host else host
        self.name = f"{parts.scheme}://{shown}:{self.port}{self.path}"


def _is_host(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return not any(one.isspace() or not one.isprintable() for one in host)


_PATH = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:@/]*")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_OURS = ("content-length", "transfer-encoding", "content-type")


def _checked(headers: Mapping[str, str], auth: bool) -> dict[str, str]:
    """The headers of all requests. Values may be secrets, and a name that is none may be one as well."""
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers takes names and values that are str, not {type(name).__name__} and {type(value).__name__}")
        if not _NAME.fullmatch(name):
            raise ConfigError("headers= has a name that no header has", advice="use letters, digits and '-'")
        if not _is_header(value):
            raise ConfigError(
                f"headers= has a value for {name} with characters that no header may have",
                advice="look for a line end, and write what is not ASCII otherwise",
            )
        if name.lower() in _OURS:
            raise ConfigError(f"headers= has {name}, which is the client's own", advice="leave it out")
        if auth and name.lower() == "authorization":
            raise ConfigError("headers= has Authorization, and there are credentials as well", advice="give one")
    given = {name.lower() for name in headers}
    usual = {"Accept": ACCEPT, "User-Agent": "ottla"}
    return {name: value for name, value in usual.items() if name.lower() not in given} | dict(headers)


def _is_header(value: str) -> bool:
    return all(one == "\t" or " " <= one <= "~" for one in value)


class _InTime(io.RawIOBase):
    """Reads from a socket until a deadline: a server that sends a byte now and then does not hold anybody up for longer."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _open(endpoint: _Endpoint, tls: ssl.SSLContext | None, end: float) -> http.client.HTTPConnection:
    timeout = max(end - time.monotonic(), 0.001)
    made = (
        http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=tls)
        if endpoint.secure
        else http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
    )

    def dial(address: tuple[str, int], *_: object) -> socket.socket:
        return _dial(address, end)

    # What it would call itself takes the whole time for each address of a name.
    setattr(made, "_create_connection", dial)  # noqa: B010 - types know nothing of it
    return made


def _dial(address: tuple[str, int], end: float) -> socket.socket:
    """A connection to one of the addresses of a name, until a deadline."""
    failed: OSError | None = None
    for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        left = end - time.monotonic()
        if left <= 0:
            failed = failed or TimeoutError("no connection in time")
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(place)
        except OSError as error:
            failed = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError("the name has no address")


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    end: float,
) -> tuple[int, bytes, bool]:
    """Status and body of an answer, and whether the connection can be used again."""
    if connection.sock is not None:
        connection.sock.settimeout(max(end - time.monotonic(), 0.001))
    connection.request(method, path, body=body, headers=headers)

    def response(sock: socket.socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        made = http.client.HTTPResponse(sock, *arguments, **options)
        made.fp.close()
        made.fp = io.BufferedReader(_InTime(sock, end))
        return made

    connection.response_class = cast("type[http.client.HTTPResponse]", response)
    with connection.getresponse() as answer:
        declared = answer.length
        if declared is not None and declared > MAX_RESPONSE:
            raise _TooLarge
        parts: list[bytes] = []
        size = 0
        while part := answer.read(min(65_536, MAX_RESPONSE + 1 - size)):
            parts.append(part)
            size += len(part)
            if size > MAX_RESPONSE:
                raise _TooLarge
        if declared is not None and size < declared:
            # http.client says so of a whole read only.
            raise http.client.IncompleteRead(b"", declared - size)
        return answer.status, b"".join(parts), not answer.will_close


class _TooLarge(Exception):
    pass


class _Idle:
    """Connections that nobody uses now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: list[tuple[_Endpoint, http.client.HTTPConnection]] = []

    def take(self, endpoint: _Endpoint) -> http.client.HTTPConnection | None:
        with self.lock:
            for place, (whose, connection) in enumerate(self.kept):
                if whose is endpoint:
                    del self.kept[place]
                    return connection
        return None

    def give(self, endpoint: _Endpoint, connection: http.client.HTTPConnection) -> None:
        with self.lock:
            if len(self.kept) < MAX_CONNECTIONS:
                self.kept.append((endpoint, connection))
                return
        connection.close()

    def close(self) -> None:
        with self.lock:
            kept, self.kept = self.kept, []
        for _, connection in kept:
            connection.close()


_all: weakref.WeakSet[Transport] = weakref.WeakSet()


class Transport:
    """Asks the first registry that answers."""

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        auth: Auth | None,
        tls: ssl.SSLContext | None,
        timeout: float,
        retries: int,
        headers: Mapping[str, str],
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        names = urls.split(",") if isinstance(urls, str) else list(urls)
        self._endpoints = [_Endpoint(name) for name in names]
        if not self._endpoints:
            raise ConfigError("no URL of a schema registry", advice="write urls='http://localhost:8081'")
        if auth is not None and any(one.auth for one in self._endpoints):
            raise ConfigError("a URL of the schema registry has a user in it, and there is auth= as well", advice="give one")
        if tls is not None and not any(one.secure for one in self._endpoints):
            raise ConfigError("tls= without a URL that begins with https://")
        self._auth = auth
        if tls is None and any(one.secure for one in self._endpoints):
            # Once: it reads all certificates of the system.
            tls = ssl.create_default_context()
        self._tls = tls
        self._timeout = timeout
        self._retries = retries
        self._headers = _checked(headers, auth is not None or any(one.auth for one in self._endpoints))
        self._sleep = sleep
        self._chance = chance
        # The one that answered last is asked first.
        self._first = 0
        self._fresh()
        _all.add(self)

    def _fresh(self) -> None:
        self._idle = _Idle()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        # Whoever forgets to close leaves no socket behind.
        self._finalizer = weakref.finalize(self, self._idle.close)

    def _in_child(self) -> None:
        self._finalizer.detach()
        for _, connection in self._idle.kept:
            connection.close()
        self._fresh()

    @property
    def names(self) -> list[str]:
        return [endpoint.name for endpoint in self._endpoints]

    def close(self) -> None:
        """Closes connections that nobody uses. What is asked later opens new ones."""
        self._idle.close()

    def ask(self, method: str, path: str, body: object | None = None) -> Any:
        """What a registry answers, read as JSON.

        Raises RegistryError. Only what may be different next time is tried again: no connection, and statuses from 500. Each URL
        is asked once however few retries there are, and all of it together takes `ROUNDS` times the timeout, or the timeout for
        each URL if these are more.
        """
        sent = None if body is None else json.dumps(body).encode()
        failures: list[str] = []
        status: int | None = None
        urls = len(self._endpoints)
        end = time.monotonic() + self._timeout * max(ROUNDS, urls)
        first = self._first
        for attempt in range(max(self._retries + 1, urls)):
            if attempt >= urls:
                # Those that were not asked yet are asked at once. All of the wait is by chance: those that failed together do
                # not come back together.
                wait = self._chance() * min(BACKOFF * 2 ** (attempt - urls), MAX_BACKOFF)
                if time.monotonic() + wait >= end:
                    break
                self._sleep(wait)
            place = (first + attempt) % urls
            endpoint = self._endpoints[place]
            try:
                status, answer = self._once(endpoint, method, path, sent, end)
            except _TooLarge:
                raise RegistryError(
                    f"schema registry {endpoint.name} answered {method} {path} with more than {MAX_RESPONSE} bytes",
                    advice="see that the URL is that of a schema registry",
                ) from None
            except (OSError, http.client.HTTPException) as error:
                status = None
                failures.append(f"{endpoint.name}: {_said(error)}")
                continue
            if status < 500:
                self._first = place
                return _answered(endpoint.name, method, path, status, answer)
            failures.append(f"{endpoint.name}: status {status}")
        raise RegistryUnavailableError(
            f"no schema registry answered {method} {path} ({'; '.join(dict.fromkeys(failures))})", status=status
        )

    def _once(
        self, endpoint: _Endpoint, method: str, path: str, body: bytes | None, end: float
    ) -> tuple[int, bytes]:
        end = min(end, time.monotonic() + self._timeout)
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = ACCEPT
        if (auth := endpoint.auth or self._auth) is not None:
            headers["Authorization"] = _authorization(auth)
        if not self._places.acquire(timeout=max(end - time.monotonic(), 0)):
            raise TimeoutError(f"{MAX_CONNECTIONS} requests are on their way already")
        try:
            # A registry closes what was idle for long, and that is seen only when it is used: then a new connection counts
            # as the first attempt. All that is asked may be asked twice.
            if (kept := self._idle.take(endpoint)) is not None:
                try:
                    return self._through(endpoint, kept, method, path, body, headers, end)
                except (ConnectionError, http.client.RemoteDisconnected, http.client.BadStatusLine, ssl.SSLEOFError):
                    pass
            made = _open(endpoint, self._tls, end)
            return self._through(endpoint, made, method, path, body, headers, end)
        finally:
            self._places.release()

    def _through(
        self,
        endpoint: _Endpoint,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        end: float,
    ) -> tuple[int, bytes]:
        try:
            status, answer, again = _exchange(connection, method, endpoint.path + path, body, headers, end)
        except BaseException:
            connection.close()
            raise
        if again:
            self._idle.give(endpoint, connection)
        else:
            connection.close()
        return status, answer


def _in_child() -> None:
    # The parent's connections carry the parent's answers. To close them here ends nothing for the parent. Their lock may be held
    # by a thread that is not in this process.
    for transport in list(_all):
        transport._in_child()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _authorization(auth: Auth) -> str:
    try:
        header: object = auth.authorization()
    except (RegistryError, MemoryError):
        raise
    except Exception as error:
        # The program's own function, whose words may have a secret in them: they stay in the cause.
        raise RegistryAuthError(
            f"what auth= calls raised {type(error).__name__}", advice="look at the cause, and mend what gives the token"
        ) from error
    if not isinstance(header, str):
        raise RegistryAuthError(f"auth= gave {type(header).__name__} as the header, and not a str")
    # http.client would repeat it in its error.
    if not _is_header(header):
        raise RegistryAuthError("auth= has characters that no header may have", advice="look for a line end in the token")
    return header


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if isinstance(error, http.client.HTTPException):
        # Their words repeat what the server sent.
        return f"no answer of HTTP ({type(error).__name__})"
    return str(error) or type(error).__name__


def _answered(name: str, method: str, path: str, status: int, body: bytes) -> Any:
    """What a registry said, or the error for that. Its own words are shown, without an end that is too long."""
    try:
        said = json.loads(body) if body else None
    except (ValueError, RecursionError):
        said = UNREADABLE
    if 200 <= status < 300:
        if said is UNREADABLE:
            raise RegistryError(
                f"{name} answered {method} {path} with what is no JSON",
                status=status,
                advice="see that the URL is that of a schema registry, and not of a proxy or a page",
            )
        return said
    code: int | None = None
    words = ""
    if isinstance(said, dict):
        given = said.get("error_code")
        code = given if isinstance(given, int) else None
        if isinstance(message := said.get("message"), str):
            words = f": {message[:500]}"
    text = f"schema registry {name} answered {method} {path} with status {status}{words}"
    kinds: dict[int, type[RegistryError]] = {
        401: RegistryAuthError,
        403: RegistryAuthError,
        404: SchemaNotFoundError,
        409: IncompatibleSchemaError,
        422: InvalidSchemaError,
    }
    if status == 404 and (code is None or not 40400 <= code <= 40499):
        # Web servers and gateways have a body for it, too, and some a code that is the status.
        raise RegistryError(
            f"{name} answered {method} {path} with a status 404 that is not a schema registry's",
            status=404,
            advice="correct the URL: its path, too",
        )
    if 300 <= status < 400:
        raise RegistryError(text, status=status, advice="write the URL to which the registry redirects: none is followed")
    if status == 429:
        raise RegistryError(
            text, status=status, error_code=code, retriable=True, advice="ask less often, or for higher quotas"
        )
    raise kinds.get(status, RegistryError)(text, status=status, error_code=code)


UNREADABLE: Any = object()
