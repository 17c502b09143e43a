"""The client of a schema registry: what it asks for, how often, of whom, and what it believes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE

import ottla
import ottla.testing
from ottla.schema_registry import (
    Basic,
    Bearer,
    IncompatibleSchemaError,
    InvalidSchemaError,
    Reference,
    RegistryAuthError,
    RegistryClient,
    RegistryError,
    RegistryUnavailableError,
    Schema,
    SchemaNotFoundError,
    _http,
)
from ottla.schema_registry._cache import Cache
from ottla.serde import WouldWait

INT = Schema('"int"')
LONG = Schema('"long"')


@pytest.fixture
def server() -> Iterator[ottla.testing.SchemaRegistry]:
    with ottla.testing.SchemaRegistry() as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What clients of this test would have waited between attempts, without the wait."""
    waited: list[float] = []
    defaults = _http.Transport.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(_http.Transport.__init__, "__kwdefaults__", defaults | {"sleep": waited.append})
    return waited


def test_schemas_are_registered_and_found(server: ottla.testing.SchemaRegistry) -> None:
    with RegistryClient(server.url) as client:
        number = client.register("orders-value", INT)
        assert client.schema(number) == INT
        assert client.register("orders-value", INT) == number
        found = client.lookup("orders-value", INT)
        assert (found.subject, found.version, found.id) == ("orders-value", 1, number)
        later = client.register("orders-value", Schema("{}", "JSON"))
        assert client.latest("orders-value") == ("orders-value", 2, later, Schema("{}", "JSON"))
        assert client.version("orders-value", 1).schema == INT
        # Beside others of its name, of which none is hurt by what is in it.
        client.register("a/b?c d:ä", INT)
        assert client.subjects() == ["orders-value", "a/b?c d:ä"]
        assert client.is_compatible("orders-value", LONG)
        server.refuse("orders-value")
        assert not client.is_compatible("orders-value", LONG)
        assert repr(client) == f"<ottla.schema_registry.RegistryClient of {server.url}>"


def test_what_looks_different_is_compared_by_the_registry(server: ottla.testing.SchemaRegistry) -> None:
    with RegistryClient(server.url) as client:
        number = client.register("s", Schema('{"type": "int", "a": 1}'))
        assert client.lookup("s", Schema('{"a":1,"type":"int"}'), normalize=True).id == number
        assert client.register("s", Schema('{"a": 1, "type": "int"}'), normalize=True) == number
        assert client.register("s", Schema('{"a": 1, "type": "int"}')) != number


def test_what_is_known_is_asked_for_once(server: ottla.testing.SchemaRegistry) -> None:
    number = server.register("s", INT.text)
    with RegistryClient(server.url) as client:
        for ask in (
            lambda wait=True: client.schema(number, wait=wait),
            lambda wait=True: client.register("s", INT, wait=wait),
            lambda wait=True: client.lookup("s", INT, wait=wait),
            lambda wait=True: client.latest("s", wait=wait),
            lambda wait=True: client.version("s", 1, wait=wait),
        ):
            before = len(server.requests)
            with pytest.raises(WouldWait):
                ask(wait=False)
            assert len(server.requests) == before
            first = ask()
            assert ask() == ask(wait=False) == first
            assert len(server.requests) == before + 1


def test_of_threads_that_want_the_same_one_asks(server: ottla.testing.SchemaRegistry) -> None:
    number = server.register("s", INT.text)
    with RegistryClient(server.url) as client, ThreadPoolExecutor(8) as pool:
        with server.slow():
            asked = [pool.submit(client.schema, number) for _ in range(8)]
            server.wait_for_requests(1)
        assert [one.result(DEADLINE) for one in asked] == [INT] * 8
        assert len(server.requests) == 1
        # And of a failure all hear who waited, each with an error of its own.
        with server.slow():
            failed = [pool.submit(client.schema, 77) for _ in range(8)]
            server.wait_for_requests(1)
        errors = [one.exception(DEADLINE) for one in failed]
        assert {type(error) for error in errors} == {SchemaNotFoundError}
        assert len({id(error) for error in errors}) == 8
        assert len(server.requests) == 2


def test_many_threads_are_few_connections(server: ottla.testing.SchemaRegistry) -> None:
    numbers = [server.register(f"s{at}", json.dumps({"type": "int", "at": at})) for at in range(12)]
    with RegistryClient(server.url) as client, ThreadPoolExecutor(12) as pool:
        with server.slow():
            asked = [pool.submit(client.schema, number) for number in numbers]
            server.wait_for_requests(_http.MAX_CONNECTIONS)
            # The others are in the client, and not on their way.
            assert len(server.requests) == _http.MAX_CONNECTIONS
        assert all(one.result(DEADLINE) for one in asked)


def test_only_what_may_change_is_tried_again(server: ottla.testing.SchemaRegistry, waits: list[float]) -> None:
    number = server.register("s", INT.text)
    client = RegistryClient(server.url, missing_ttl=0)
    server.fail(500, times=2)
    server.fail(503)
    assert client.schema(number) == INT
    assert len(server.requests) == 4
    assert len(waits) == 3 and all(0 <= wait <= limit for wait, limit in zip(waits, (0.1, 0.2, 0.4), strict=True))
    for status, kind in (
        (400, RegistryError),
        (401, RegistryAuthError),
        (403, RegistryAuthError),
        (404, SchemaNotFoundError),
        (409, IncompatibleSchemaError),
        (422, InvalidSchemaError),
        (429, RegistryError),
        (302, RegistryError),
    ):
        server.fail(status)
        before = len(server.requests)
        with pytest.raises(kind, match=f"with status {status}: planted by a test") as told:
            client.schema(77)
        assert (told.value.status, told.value.error_code) == (status, None if status == 302 else status * 100)
        assert told.value.retriable == (status == 429)
        assert len(server.requests) == before + 1
    server.fail(500, times=9)
    before = len(server.requests)
    with pytest.raises(RegistryUnavailableError, match="status 500") as gone:
        client.schema(77)
    assert len(server.requests) == before + 4
    assert gone.value.retriable and isinstance(gone.value, ottla.RetriableError)
    client.close()


def test_a_connection_that_ends_without_an_answer_is_tried_again(
    server: ottla.testing.SchemaRegistry, waits: list[float]
) -> None:
    number = server.register("s", INT.text)
    with RegistryClient(server.url) as client:
        # The first on a new connection, the second on one that was kept, which is no attempt of its own.
        server.drop()
        assert client.schema(number) == INT and len(waits) == 1
        server.drop()
        assert client.latest("s").id == number and len(waits) == 1


def test_several_urls_are_one_registry(waits: list[float]) -> None:
    with ottla.testing.SchemaRegistry() as two:
        number = two.register("s", INT.text)
        with socket.socket() as nobody, ottla.testing.SchemaRegistry() as sick:
            nobody.bind(("127.0.0.1", 0))
            sick.fail(500, times=9)
            # Each is asked, however few retries there are, and those that were not asked yet are asked without a wait.
            client = RegistryClient([f"http://127.0.0.1:{nobody.getsockname()[1]}", sick.url, two.url], retries=0)
            assert client.schema(number) == INT and waits == []
            # The one that answered is asked first.
            assert client.latest("s").id == number and waits == []
            assert len(sick.requests) == 1 and len(two.requests) == 2
            client.close()
        lost = RegistryClient([sick.url, f"{sick.url}/x"], retries=2)
        with pytest.raises(RegistryUnavailableError, match=f"{sick.url}: .*; {sick.url}/x: ") as told:
            lost.schema(1)
        assert told.value.status is None and len(waits) == 1


def test_credentials(server: ottla.testing.SchemaRegistry) -> None:
    with ottla.testing.SchemaRegistry(user=("alice", "her:secret"), token="a-token") as closed:
        number = closed.register("s", INT.text)
        host = closed.url.removeprefix("http://")
        with pytest.raises(RegistryAuthError):
            RegistryClient(closed.url).schema(number)
        tokens = iter(["an-old-one", "a-token"])
        rotating = RegistryClient(closed.url, auth=Bearer(lambda: next(tokens)))
        with pytest.raises(RegistryAuthError):
            rotating.schema(number)
        for client in (
            RegistryClient(closed.url, auth=Basic("alice", "her:secret")),
            RegistryClient(f"http://alice:her%3Asecret@{host}"),
            RegistryClient(closed.url, auth=Bearer("a-token")),
            rotating,
        ):
            assert client.schema(number) == INT
            assert client.urls == [closed.url] and "secret" not in repr(client)
            client.close()
        with pytest.raises(RegistryAuthError, match="no header may have") as told:
            RegistryClient(closed.url, auth=Bearer("a-token\r\nX: y")).schema(number)
        assert "a-token" not in str(told.value)

        def raises() -> str:
            raise OSError("a-token of somebody")

        # A function that raises is no registry that cannot be reached: it is not asked again, and nobody else either.
        asked = len(closed.requests)
        with pytest.raises(RegistryAuthError, match="what auth= calls raised OSError; look at the cause") as told:
            RegistryClient(closed.url, auth=Bearer(raises)).schema(number)
        assert "a-token" not in str(told.value) and isinstance(told.value.__cause__, OSError)
        nothing: Any = lambda: None  # noqa: E731
        with pytest.raises(RegistryAuthError, match="gave NoneType, and not a str"):
            RegistryClient(closed.url, auth=Bearer(nothing)).schema(number)
        assert len(closed.requests) == asked
        assert repr(Basic("alice", "her:secret")) + repr(Bearer("a-token")) == "Basic(...)Bearer(...)"


def test_what_is_wrong_with_settings_is_said_without_secrets() -> None:
    for urls, words in (
        ([], "no URL"),
        ("localhost:8081", "is not like"),
        ("ftp://localhost", "is not like"),
        ("http://alice:secret@[bad", "cannot be read"),
        ("http://alice:secret@localhost:port", "cannot be read"),
        ("http://localhost:1?x=secret", "is not like"),
        (f"http://{'secret' * 20}", "is not like"),
        ("http://localhost:1/a secret", "has characters that no path has"),
        ("http://localhost:1/sécret", "has characters that no path has"),
    ):
        with pytest.raises(ottla.ConfigError, match=words) as told:
            RegistryClient(urls)
        assert "secret" not in str(told.value)
    url = "http://localhost:8081"
    for settings, words in (
        ({"timeout": 0}, "timeout = 0 is not within 0.01 and 3,600"),
        ({"timeout": timedelta(hours=2)}, "timeout"),
        ({"retries": 21}, "retries"),
        ({"latest_ttl": -1}, "latest_ttl"),
        ({"missing_ttl": 3_601}, "missing_ttl"),
        ({"cache_size": 0}, "cache_size"),
        ({"context": "a:b"}, "context='a:b'"),
        ({"tls": ssl.create_default_context()}, "begins with https"),
        ({"headers": {"X-Key": "secret\r\nX: y"}}, "a value for X-Key with characters that no header may have"),
        ({"headers": {"X-Key": "sécret"}}, "a value for X-Key with characters"),
        ({"headers": {"secret: x": "y"}}, "a name that no header has"),
        ({"headers": {"": "secret"}}, "a name that no header has"),
        ({"headers": {"content-length": "3"}}, "content-length, which is the client's own"),
        ({"headers": {"authorization": "secret"}, "auth": Bearer("x")}, "and there are credentials as well"),
    ):
        options: Any = settings
        with pytest.raises(ottla.ConfigError, match=words) as told:
            RegistryClient(url, **options)
        assert "secret" not in str(told.value)
    options = {"headers": {"X-Key": 3}}
    with pytest.raises(TypeError, match="headers takes names and values that are str"):
        RegistryClient(url, **options)
    with pytest.raises(ottla.ConfigError, match="and there is auth= as well"):
        RegistryClient("http://a:b@localhost:1", auth=Basic("a", "b"))
    with pytest.raises(ottla.ConfigError, match="no ':'"):
        Basic("a:b", "c")
    options = {"timeout": "1"}
    with pytest.raises(TypeError, match="timeout takes a number, not str"):
        RegistryClient(url, **options)
    for secret in (Basic("a", "b"), Bearer("a")):
        with pytest.raises(TypeError, match="not pickled"):
            secret.__reduce__()
    assert RegistryClient(["http://[::1]", "https://localhost/a/"]).urls == ["http://[::1]:80", "https://localhost:443/a"]


def test_tls(tmp_path: Path) -> None:
    with ottla.testing.Broker(tls=True) as broker:
        certificate, key = broker.client_identity("registry")
        (tmp_path / "certificate").write_text(certificate)
        (tmp_path / "key").write_text(key)
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
        with ottla.testing.SchemaRegistry(tls=serving) as server:
            number = server.register("s", INT.text)
            # The certificate is one of a client, which no client takes for a server's.
            careless = ssl.create_default_context()
            careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
            with RegistryClient(server.url, tls=careless) as client:
                assert client.schema(number) == INT
                assert client.latest("s").id == number
            for tls in (None, ssl.create_default_context(cadata=broker.ca)):
                with pytest.raises(RegistryUnavailableError, match="certificate is not trusted"):
                    RegistryClient(server.url, tls=tls, retries=0).schema(number)


def test_contexts(server: ottla.testing.SchemaRegistry) -> None:
    server.register("orders-value", INT.text)
    with RegistryClient(server.url, context="staging") as client:
        number = client.register("orders-value", LONG)
        assert [one[2] for one in server.versions(":.staging:orders-value")] == [LONG.text]
        # The same number is another schema there.
        assert client.schema(number) == LONG
        assert client.subjects() == [":.staging:orders-value"]
        client.register(":.other:orders-value", INT)
        assert client.schema(1, subject=":.other:orders-value") == INT
        assert client.latest(":.other:orders-value").schema == INT
    assert {RegistryClient(server.url, context=name)._context for name in (":.a:", ".a", "a")} == {":.a:"}


def test_schemas_that_need_schemas(server: ottla.testing.SchemaRegistry) -> None:
    server.register("a", '"a"')
    server.register("b", '"b"', references=[("A", "a", 1)])
    both = Schema('"c"', references=(Reference("B", "b", 1), Reference("A", "a", 1)))
    with RegistryClient(server.url) as client:
        assert [(name, one.text) for name, one in client.references(both)] == [("A", '"a"'), ("B", '"b"')]
        # In circles, for whatever reason.
        server.register("c", '"c"', references=[("D", "d", 1)])
        server.register("d", '"d"', references=[("C", "c", 1)])
        with pytest.raises(InvalidSchemaError, match="version 1 of subject 'c' needs itself"):
            client.references(Schema('"x"', references=(Reference("C", "c", 1),)))
        server.register("deep0", '"deep0"')
        for at in range(40):
            server.register(f"deep{at + 1}", f'"deep{at + 1}"', references=[("X", f"deep{at}", 1)])
        with pytest.raises(InvalidSchemaError, match="more than 32 deep"):
            client.references(Schema('"x"', references=(Reference("X", "deep40", 1),)))
        assert len(client.references(Schema('"x"', references=(Reference("X", "deep31", 1),)))) == 32
        many = tuple(Reference(f"N{at}", "a", 1) for at in range(1_001))
        with pytest.raises(InvalidSchemaError, match="more than 1000 schemas"):
            client.references(Schema('"x"', references=many))
        with pytest.raises(InvalidSchemaError, match="No schema reference found"):
            client.register("x", Schema('"x"', references=(Reference("N", "none", 1),)))
        with pytest.raises(SchemaNotFoundError, match="Subject 'none' not found"):
            client.references(Schema('"x"', references=(Reference("N", "none", 1),)))


# Servers that are no registry.


def serve(*answers: bytes, chunks: bool = False) -> tuple[str, Callable[[], None]]:
    """A server that answers each connection with such bytes, and ends it; its URL, and what to call at the end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65_536)
                    connection.sendall(answer)
                    if chunks:
                        # Nothing more comes; the other side goes.
                        while connection.recv(65_536):
                            pass
                except OSError:
                    pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        listener.close()
        thread.join(DEADLINE)

    return f"http://127.0.0.1:{listener.getsockname()[1]}", end


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http_answer(b"<html>"), "what is no JSON"),
        (http_answer(b"[]"), "did not answer with an object"),
        (http_answer(b'{"schema": 3}'), "did not answer with a schema"),
        (http_answer(b'{"schema": "{}", "schemaType": "XML"}'), "of type 'XML'"),
        (http_answer(b'{"schema": "{}", "references": 3}'), "references"),
        (http_answer(b'{"schema": "{}", "references": [3]}'), "references"),
        (http_answer(b'{"schema": "{}", "references": [{"name": 3}]}'), "references with a name"),
        (http_answer(b'{"schema": "{}", "references": [{"name": "a", "subject": "b"}]}'), "as its version"),
        (http_answer(b"<html>", "404 Not Found"), "404 that is not a schema registry's; correct the URL"),
        (http_answer(b'{"error_code": 404, "message": "HTTP 404"}', "404 Not Found"), "404 that is not a schema registry's"),
        (http_answer(b'{"error_code": 40500}', "404 Not Found"), "404 that is not a schema registry's"),
        (http_answer(b"[" * 100_000, "400 Bad Request"), "with status 400"),
        (http_answer(b"", headers="Location: http://x\r\n", status="301 Moved"), "none is followed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than 16777216 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * ((16 << 20) + 1), "more than 16777216 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, "no answer of HTTP"),
    ],
)
def test_what_is_no_registry(answer: bytes, words: str) -> None:
    url, end = serve(answer)
    with pytest.raises(RegistryError, match=words):
        RegistryClient(url, retries=0).schema(1)
    end()


def test_numbers_that_are_none() -> None:
    for body in (b'{"id": "3"}', b'{"id": -1}', b'{"id": 4294967296}', b"{}"):
        url, end = serve(http_answer(body))
        with pytest.raises(RegistryError, match="a number as its id"):
            RegistryClient(url, retries=0).register("s", INT)
        end()
    url, end = serve(http_answer(b"[3]"))
    with pytest.raises(RegistryError, match="a list of subjects"):
        RegistryClient(url, retries=0).subjects()
    end()


def test_a_server_that_goes_on_answering_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # A byte is there each time somebody looks, and each look takes a second of this clock.
    now = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            now[0] += 1
            return now[0]

    monkeypatch.setattr(_http, "time", Time)
    url, end = serve(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2_000_000, chunks=True)
    with pytest.raises(RegistryUnavailableError, match="no answer in time"):
        RegistryClient(url, retries=0, timeout=10).schema(1)
    # What was taken is what there was time for.
    assert now[0] < 50
    end()


def test_a_registry_that_does_not_answer_is_left_in_time(server: ottla.testing.SchemaRegistry) -> None:
    # However short the time is, and whether it was over before the request went or after: the error is the same.
    with server.slow(), pytest.raises(RegistryUnavailableError, match=r"timed out|no (answer|connection) in time"):
        RegistryClient(server.url, retries=0, timeout=0.05).schema(1)


def test_all_attempts_together_are_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each request takes all of its time, and each wait is as long as it may be.
    now = [0.0]
    given: list[float] = []

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def once(endpoint: Any, method: str, path: str, body: bytes | None, end: float) -> tuple[int, bytes]:
        given.append(min(end, now[0] + 10) - now[0])
        now[0] += given[-1]
        raise TimeoutError("no answer in time")

    monkeypatch.setattr(_http, "time", Time)
    for urls, asked in ((1, 2), (2, 2), (3, 3)):
        now[0], given[:] = 0, []
        names = [f"http://r{at}" for at in range(urls)]
        transport = _http.Transport(
            names, auth=None, tls=None, timeout=10, retries=20, headers={}, sleep=wait, chance=lambda: 1
        )
        monkeypatch.setattr(transport, "_once", once)
        with pytest.raises(RegistryUnavailableError, match="no answer in time"):
            transport.ask("GET", "/")
        assert len(given) == asked and now[0] <= 10 * max(2, urls)


def test_a_name_has_its_addresses_tried_within_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first refuses, the second is there.
    with socket.socket() as nobody, ottla.testing.SchemaRegistry() as server:
        nobody.bind(("127.0.0.1", 0))
        places = [nobody.getsockname(), ("127.0.0.1", int(server.url.rpartition(":")[2]))]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
        number = server.register("s", INT.text)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with RegistryClient("http://registry:1", retries=0) as client:
            assert client.schema(number) == INT
        found.pop()
        with pytest.raises(RegistryUnavailableError, match="refused"):
            RegistryClient("http://registry:1", retries=0).schema(number)
        found.pop()
        with pytest.raises(RegistryUnavailableError, match="no address"):
            RegistryClient("http://registry:1", retries=0).schema(number)


def test_ids_that_no_registry_gives_are_not_asked_for(server: ottla.testing.SchemaRegistry) -> None:
    with RegistryClient(server.url) as client:
        for number in (-1, 1 << 31, (1 << 32) - 1):
            with pytest.raises(SchemaNotFoundError, match="ids are 0 to 2,147,483,647"):
                client.schema(number)
        assert server.requests == []
        with pytest.raises(SchemaNotFoundError, match="Schema 2147483647 not found"):
            client.schema((1 << 31) - 1)


# What is kept.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def unavailable() -> int:
    raise RegistryUnavailableError("gone")


def missing() -> int:
    raise SchemaNotFoundError("none")


def never() -> int:
    raise AssertionError("nobody is to be asked")


def test_what_is_old_is_asked_for_again_and_still_used_while_nobody_answers() -> None:
    clock = Clock()
    cache: Cache[str, int] = Cache(2, ttl=10, missing_ttl=5, clock=clock)
    assert cache.get("a", lambda: 1) == 1
    clock.now = 9.9
    assert cache.get("a", never) == 1
    clock.now = 10
    with pytest.raises(WouldWait):
        cache.get("a", never, wait=False)
    assert cache.get("a", unavailable) == 1
    # It is believed for a while again: no registry is asked for each record in an outage.
    assert cache.get("a", never) == 1
    clock.now = 20
    assert cache.get("a", lambda: 2) == 2
    clock.now = 30
    with pytest.raises(SchemaNotFoundError):
        cache.get("a", missing)
    with pytest.raises(RegistryUnavailableError):
        cache.get("b", unavailable)
    # What is there no longer is not what an outage is survived with.
    clock.now = 40
    with pytest.raises(RegistryUnavailableError):
        cache.get("a", unavailable)

    # What somebody has put there meanwhile counts, and not what was there when it was asked for.
    def while_it_is_put(error: Exception) -> Callable[[], int]:
        def load() -> int:
            cache.put("c", 9)
            raise error

        return load

    cache.put("c", 8)
    clock.now = 50
    assert cache.get("c", while_it_is_put(RegistryUnavailableError("gone"))) == 9
    assert cache.get("c", never) == 9
    clock.now = 60
    with pytest.raises(SchemaNotFoundError):
        cache.get("c", while_it_is_put(SchemaNotFoundError("none")))
    assert cache.get("c", never) == 9


def test_what_is_not_there_is_believed_for_a_while() -> None:
    clock = Clock()
    cache: Cache[str, int] = Cache(2, missing_ttl=5, clock=clock)
    for ask in (missing, never):
        with pytest.raises(SchemaNotFoundError):
            cache.get("a", ask)
    clock.now = 5
    assert cache.get("a", lambda: 1) == 1
    # It was put there meanwhile.
    with pytest.raises(SchemaNotFoundError):
        cache.get("b", missing)
    cache.put("b", 2)
    assert cache.get("b", never) == 2


def test_what_was_used_last_is_kept_and_made_up_ids_push_out_nothing() -> None:
    cache: Cache[int, int] = Cache(3, missing_ttl=5, clock=Clock())
    for key in (1, 2, 3, 1, 4):
        assert cache.get(key, lambda key=key: key) == key
    for key in range(100, 200):
        with pytest.raises(SchemaNotFoundError):
            cache.get(key, missing)
    assert len(cache) == 6
    for key in (1, 3, 4):
        assert cache.get(key, never) == key
    with pytest.raises(WouldWait):
        cache.get(2, never, wait=False)


def test_one_that_is_interrupted_while_it_asks_leaves_it_to_the_others() -> None:
    cache: Cache[str, int] = Cache(1)
    begun, go = threading.Event(), threading.Event()

    def interrupted() -> int:
        begun.set()
        assert go.wait(DEADLINE)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", interrupted)
        assert begun.wait(DEADLINE)
        with pytest.raises(WouldWait):
            cache.get("a", never, wait=False)
        second = pool.submit(cache.get, "a", lambda: 7)
        go.set()
        assert isinstance(first.exception(DEADLINE), KeyboardInterrupt)
        assert second.result(DEADLINE) == 7


def test_one_that_is_interrupted_before_it_asks_leaves_it_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: Cache[str, int] = Cache(1)

    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_fly", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.get("a", never)
    assert cache.get("a", lambda: 7) == 7

    # And what ends a thread without a word of what it asked for.
    def out_of_memory() -> int:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.get("b", out_of_memory)
    assert cache.get("b", lambda: 8) == 8


def test_a_child_asks_by_itself(server: ottla.testing.SchemaRegistry) -> None:
    numbers = [server.register(f"s{at}", json.dumps({"type": "int", "at": at})) for at in range(3)]
    client = RegistryClient(server.url)
    client.schema(numbers[0])
    with ThreadPoolExecutor(1) as pool, server.slow():
        asking = pool.submit(client.schema, numbers[1])
        server.wait_for_requests(1)
        # In the child that thread is not, and what it has asked for is asked for once more.
        read, write = os.pipe()
        connections = client._transport._idle
        child = os.fork()
        if child == 0:
            try:
                with pytest.raises(WouldWait):
                    client.schema(numbers[1], wait=False)
                client._transport._timeout = 0.05
                client._transport._retries = 0
                with pytest.raises(RegistryUnavailableError):
                    client.schema(numbers[1])
                os.write(write, b"x" if client._transport._idle is connections else b".")
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 10) == b"."
        os.close(read)
    assert asking.result(DEADLINE).text.endswith("1}")
    assert client.schema(numbers[2]).text.endswith("2}")
    client.close()


def test_a_loop_is_not_held_up(server: ottla.testing.SchemaRegistry) -> None:
    number = server.register("s", INT.text)

    async def run() -> None:
        with RegistryClient(server.url) as client:
            with server.slow():
                asked = asyncio.create_task(asyncio.to_thread(client.schema, number))
                await asyncio.to_thread(server.wait_for_requests, 1)
                # Another one that wants it is told so, and does not wait behind the thread.
                with pytest.raises(WouldWait):
                    client.schema(number, wait=False)
                assert not asked.done()
            assert await asked == INT

    asyncio.run(run())
