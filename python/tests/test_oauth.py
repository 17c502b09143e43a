"""OAUTHBEARER from Python: tokens from endpoints, files, and a program's own functions."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import pytest
from conftest import DEADLINE, Program, until

import ottla
import ottla.testing
from ottla import _tokens, aio

CANARY = "hunter2-Zm9v"
# What is given wrong on purpose is not for the type checker.
untyped: Any = ottla


@pytest.fixture
def bearers() -> Iterator[ottla.testing.Broker]:
    """It takes the token a.b.c."""
    with ottla.testing.Broker(mechanisms=["OAUTHBEARER"]) as broker:
        broker.create_topic("t")
        broker.add_token("a.b.c", "alice")
        yield broker


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Gives a.b.c to the client "me" with the secret, in whatever way it comes, if it asks for the scope "kafka"."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            header = self.headers.get("Authorization", "").removeprefix("Basic ")
            pair = base64.b64decode(header).decode().partition(":")
            given = {name: values[0] for name, values in form.items()}
            secret = pair[2] or given.get("client_secret", "")
            knows = (pair[0] or given.get("client_id"), secret) == ("me", CANARY)
            if knows and given.get("scope") == "kafka":
                answer = {"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 3600}
            else:
                answer = {"error": "invalid_client", "error_description": f"not {secret}"}
            body = json.dumps(answer).encode()
            self.send_response(200 if "access_token" in answer else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()
        thread.join()


def goes_in_and_out(broker: ottla.testing.Broker, sasl: ottla.OAuth, **settings: Any) -> None:
    with ottla.Producer(broker.bootstrap, sasl=sasl, **settings) as producer:
        at = producer.send("t", b"in").result(timeout=DEADLINE)
    start = [("t", 0, at.offset)]
    with ottla.Consumer(broker.bootstrap, assignment=start, sasl=sasl, **settings) as consumer:
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.value == b"in"


def of_url(url: str, secret: str | bytes | None = CANARY, **more: Any) -> ottla.OAuth:
    return ottla.OAuth(ottla.ClientCredentials(url, "me", secret, scope="kafka", **more))


def test_records_go_in_and_out_with_tokens_from_everywhere(
    bearers: ottla.testing.Broker, endpoint: str, tmp_path: Path
) -> None:
    token, secret = tmp_path / "token", tmp_path / "secret"
    token.write_text("a.b.c\n")
    secret.write_text(f"{CANARY}\n")
    in_an_hour = datetime.now(timezone.utc) + timedelta(hours=1)
    for sasl in (
        of_url(endpoint),
        of_url(endpoint, CANARY.encode(), secret_in_body=True, params={"audience": "x"}),
        of_url(endpoint, encoded_header=True),
        of_url(endpoint, None, client_secret_file=secret),
        ottla.OAuth(file=token, extensions={"logicalCluster": "lkc-1"}),
        ottla.OAuth(token="a.b.c"),
        ottla.OAuth(token=ottla.Token(b"a.b.c", expires_in=3600)),
        ottla.OAuth(token=lambda: "a.b.c"),
        ottla.OAuth(token=lambda: ("a.b.c", time.time() + 3600)),
        ottla.OAuth(token=lambda: ("a.b.c", in_an_hour)),
        ottla.OAuth(
            token=lambda: ottla.Token("a.b.c", expires_at=in_an_hour, extensions={"pool": "p"})
        ),
    ):
        goes_in_and_out(bearers, sasl)
    ottla.create_topic(bearers.bootstrap, "u", sasl=ottla.OAuth(file=str(token)))
    with pytest.raises(ottla.CredentialsError, match=r"401: invalid_client \(not \*\*\*\)") as caught:
        ottla.Producer(bearers.bootstrap, sasl=of_url(endpoint, f"{CANARY}-wrong"))
    assert caught.value.code == "credentials" and CANARY not in repr(caught.value)
    bearers.remove_token("a.b.c")
    with pytest.raises(ottla.AuthenticationError, match="invalid_token"):
        ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(file=token))


def test_tokens_by_properties(
    bearers: ottla.testing.Broker, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c")
    url = "sasl.oauthbearer.token.endpoint.url"
    jaas = f'OAuthBearerLoginModule required clientId="me" clientSecret="{CANARY}" scope="kafka";'
    common = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}
    for properties in (
        {
            "sasl.oauthbearer.method": "oidc",
            url: endpoint,
            "sasl.oauthbearer.client.id": "me",
            "sasl.oauthbearer.client.secret": CANARY,
            "sasl.oauthbearer.scope": "kafka",
            "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
        },
        {url: endpoint, "sasl.jaas.config": jaas},
        {url: f"file:{file}"},
    ):
        all_of_it = {"bootstrap.servers": bearers.bootstrap, **common, **properties}
        with ottla.Producer.from_properties(all_of_it) as producer:
            producer.send("t", b"x").result(timeout=DEADLINE)
    with pytest.raises(ottla.ConfigError, match="token.endpoint.url is missing"):
        ottla.Producer.from_properties({"bootstrap.servers": "h:1", **common})


def test_a_function_is_called_on_a_thread_of_its_own_and_once_for_all_handles(
    bearers: ottla.testing.Broker,
) -> None:
    called_on: list[str] = []

    def token() -> str:
        called_on.append(threading.current_thread().name)
        return "a.b.c"

    sasl = ottla.OAuth(token=token)
    with ottla.Producer(bearers.bootstrap, sasl=sasl) as producer:
        goes_in_and_out(bearers, sasl)
        producer.send("t", b"x").result(timeout=DEADLINE)
    assert called_on == ["ottla-token"]
    goes_in_and_out(bearers, ottla.OAuth(token=token))
    assert len(called_on) == 2


def renewing(
    broker: ottla.testing.Broker, life: float, asked: list[float]
) -> tuple[list[float], Callable[[], ottla.Token]]:
    def token() -> ottla.Token:
        asked.append(time.time())
        text = f"t.{len(asked)}"
        broker.add_token(text, "alice", lifetime=life)
        return ottla.Token(text, expires_in=life)

    return asked, token


def test_tokens_are_renewed_while_records_go_out(bearers: ottla.testing.Broker) -> None:
    asked, token = renewing(bearers, 3.0, [])
    with ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token)) as producer:
        # Sessions end with their tokens: once a fourth one is there, two have ended.
        while len(asked) < 4:
            producer.send("t", b"x").result(timeout=DEADLINE)


def raises() -> str:
    raise LookupError("the vault is sealed")


def exits() -> str:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (raises, "the token provider: LookupError: the vault is sealed"),
        (exits, "SystemExit: 3"),
        (lambda: None, "TypeError: a token is a str, .* not NoneType"),
        (lambda: f"{CANARY}ü", "characters that none can have"),
        (lambda: "", "the token is empty"),
        (lambda: ("a.b.c", 2_000_000_000_000), "seconds since 1970, not in ms"),
        (lambda: ("a.b.c", time.time() - 3600), "has expired"),
        (lambda: ("a.b.c", datetime(2030, 1, 1)), "no timezone"),
        (lambda: ottla.Token("a.b.c", extensions={"auth": CANARY}), "an extension has a name"),
    ],
    ids=["raises", "exits", "none", "non-ascii", "empty", "ms", "expired", "naive", "extension"],
)
def test_a_function_that_gives_none(
    bearers: ottla.testing.Broker, token: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ottla.CredentialsError, match=words) as caught:
        ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token), connect_timeout=0.5)
    assert caught.value.code == "credentials" and CANARY not in str(caught.value)


def test_a_function_that_never_answers_is_called_once(bearers: ottla.testing.Broker) -> None:
    asked = 0
    go_on = threading.Event()

    def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            go_on.wait(DEADLINE)
        return "a.b.c"

    sasl = ottla.OAuth(token=token)
    for _ in range(2):
        with pytest.raises((ottla.ConnectError, ottla.CredentialsError)):
            ottla.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=0.5)
    assert asked == 1
    # Its answer comes after the clients that wanted it have gone, and is of no use. The next one is.
    go_on.set()
    goes_in_and_out(bearers, sasl)
    assert asked == 2


def collected(known: weakref.ref[Any]) -> bool:
    gc.collect()
    return known() is None


def test_a_function_is_forgotten_with_its_handles(bearers: ottla.testing.Broker) -> None:
    class Vault:
        def token(self) -> str:
            return "a.b.c"

    def use() -> weakref.ref[Vault]:
        vault = Vault()
        goes_in_and_out(bearers, ottla.OAuth(token=vault.token))
        return weakref.ref(vault)

    vault = use()

    until(lambda: collected(vault), "it is forgotten")
    until(lambda: not _tokens._desk.providers, "the engine has let go of it")


def test_an_async_def_runs_on_the_loop(bearers: ottla.testing.Broker) -> None:
    ran_on: list[tuple[asyncio.AbstractEventLoop, int]] = []

    async def token() -> tuple[str, float]:
        await asyncio.sleep(0)
        ran_on.append((asyncio.get_running_loop(), threading.get_ident()))
        return "a.b.c", time.time() + 3600

    class Called:
        async def __call__(self) -> str:
            return (await token())[0]

    async def main(sasl: ottla.OAuth) -> asyncio.AbstractEventLoop:
        async with aio.Producer(bearers.bootstrap, sasl=sasl) as producer:
            at = await producer.send_and_wait("t", b"in")
        start = [("t", 0, at.offset)]
        async with aio.Consumer(bearers.bootstrap, assignment=start, sasl=sasl) as consumer:
            async for record in consumer:
                assert record.value == b"in"
                break
        return asyncio.get_running_loop()

    given: Callable[[], Any] = lambda: token()  # noqa: E731 - what does not say that it is to be awaited
    for made in (token, Called(), given):
        loop = asyncio.run(main(ottla.OAuth(token=cast(Any, made))))
        assert ran_on.pop() == (loop, threading.get_ident()) and not ran_on
    with pytest.raises(ottla.ConfigError, match=r"async def .* ottla\.aio"):
        ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token))


def test_an_async_def_without_a_loop_and_one_that_raises(bearers: ottla.testing.Broker) -> None:
    async def token() -> str:
        raise LookupError("the vault is sealed")

    async def main() -> None:
        producer = aio.Producer(
            bearers.bootstrap, sasl=ottla.OAuth(token=token), connect_timeout=0.5
        )
        with pytest.raises(ottla.CredentialsError, match="LookupError: the vault is sealed"):
            async with producer:
                pass

    asyncio.run(main())
    sasl = ottla.OAuth(token=cast(Any, lambda: token()))
    with pytest.raises(ottla.CredentialsError, match="event loop of ottla.aio, and none runs"):
        ottla.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=0.5)


def test_words_that_are_no_text_are_told_as_well_as_they_can_be(bearers: ottla.testing.Broker) -> None:
    def token() -> str:
        # As of the name of a file that is no UTF-8.
        raise LookupError("no \udcff here")

    with pytest.raises(ottla.CredentialsError, match=r"LookupError: no \? here"):
        ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token), connect_timeout=0.5)

    async def main() -> None:
        async def later() -> str:
            token()
            return ""

        with pytest.raises(ottla.CredentialsError, match=r"LookupError: no \? here"):
            async with aio.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=later), connect_timeout=0.5):
                pass

    asyncio.run(main())


def test_an_async_def_is_cancelled_when_nobody_waits(bearers: ottla.testing.Broker) -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def token() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async def use() -> None:
            sasl = ottla.OAuth(token=token)
            with pytest.raises((ottla.ConnectError, ottla.CredentialsError)):
                async with aio.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=0.5):
                    pass

        await use()
        gc.collect()
        await asyncio.wait_for(cancelled.wait(), DEADLINE)

    asyncio.run(main())


def test_an_async_def_that_minds_no_cancellation_is_not_called_beside_itself(
    bearers: ottla.testing.Broker,
) -> None:
    asked = 0

    async def main() -> None:
        go_on, cancelled = asyncio.Event(), asyncio.Event()

        async def token() -> str:
            nonlocal asked
            asked += 1
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    cancelled.set()
            return "a.b.c"

        sasl = ottla.OAuth(token=token)

        async def in_vain() -> str:
            with pytest.raises((ottla.ConnectError, ottla.CredentialsError)) as caught:
                async with aio.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=0.5):
                    pass
            return str(caught.value)

        await in_vain()
        gc.collect()
        await asyncio.wait_for(cancelled.wait(), DEADLINE)
        assert "has not answered the request before" in await in_vain()
        assert asked == 1
        go_on.set()
        async with aio.Producer(bearers.bootstrap, sasl=sasl):
            pass
        assert asked == 2

    asyncio.run(main())


def test_an_async_def_on_a_loop_that_was_closed_is_over(
    bearers: ottla.testing.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, given_up = 0, threading.Event()
    give_up = _tokens._Asked.give_up

    def told(of: _tokens._Asked) -> None:
        give_up(of)
        given_up.set()

    monkeypatch.setattr(_tokens._Asked, "give_up", told)

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return "a.b.c"

    sasl = ottla.OAuth(token=token)

    async def use(timeout: float) -> None:
        async with aio.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=timeout):
            pass

    loop = asyncio.new_event_loop()
    with pytest.raises((ottla.ConnectError, ottla.CredentialsError)):
        loop.run_until_complete(use(0.5))
    gc.collect()
    assert given_up.wait(DEADLINE)
    # Nobody ends its tasks: what is to cancel this one does not run any more.
    left = asyncio.all_tasks(loop)
    loop.close()
    asyncio.run(use(DEADLINE))
    assert asked == 2
    for task in left:
        # Else asyncio says that it was destroyed.
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]


def test_what_asyncio_shows_where_it_debugs_has_no_token(
    bearers: ottla.testing.Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bearers.add_token(CANARY, "alice")

    async def token() -> tuple[str, float]:
        await asyncio.sleep(0)
        return CANARY, time.time() + 3600

    async def main() -> None:
        # Each step counts as one that took long, and is shown with its task.
        asyncio.get_running_loop().slow_callback_duration = 0
        async with aio.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token)) as producer:
            await producer.send_and_wait("t", b"in")

    with caplog.at_level("DEBUG"):
        asyncio.run(main(), debug=True)
    assert "_Asked._ask() done" in caplog.text and CANARY not in caplog.text


def test_an_async_def_is_called_for_a_handle_that_was_let_go(bearers: ottla.testing.Broker) -> None:
    """Its records are on their way, and nobody keeps the function but them."""

    async def main() -> None:
        async def token() -> str:
            return "a.b.c"

        sasl = ottla.OAuth(token=token)
        delivery = await aio.Producer(bearers.bootstrap, sasl=sasl).send("t", b"x")
        del sasl
        gc.collect()
        assert (await asyncio.wait_for(delivery, DEADLINE)).offset >= 0

    asyncio.run(main())


@pytest.mark.parametrize("closes", [True, False])
def test_a_function_of_an_object_that_keeps_its_handles_is_forgotten(
    bearers: ottla.testing.Broker, closes: bool
) -> None:
    class Vault:
        def __init__(self) -> None:
            self.sasl = ottla.OAuth(token=self.token)
            self.producer = ottla.Producer(bearers.bootstrap, sasl=self.sasl)
            self.consumer = ottla.Consumer(bearers.bootstrap, topics=["t"], sasl=self.sasl)
            self.records = self.consumer.records()
            self.admin = ottla.Admin(bearers.bootstrap, sasl=self.sasl)
            self.later = aio.Producer(bearers.bootstrap, sasl=self.sasl)
            self.reader = aio.Consumer(bearers.bootstrap, topics=["t"], sasl=self.sasl)
            self.reading = self.reader.records()

        def token(self) -> str:
            return "a.b.c"

    def use() -> weakref.ref[Vault]:
        vault = Vault()
        vault.producer.send("t", b"x").result(timeout=DEADLINE)
        if closes:
            vault.producer.close()
            vault.consumer.close()
        return weakref.ref(vault)

    vault = use()
    until(lambda: collected(vault), "it is forgotten")
    until(lambda: not _tokens._desk.providers, "the engine has let go of it")


def test_a_function_is_kept_by_its_handles_alone(bearers: ottla.testing.Broker) -> None:
    asked: list[float] = []

    def made() -> ottla.Producer:
        _, token = renewing(bearers, 2.0, asked)
        return ottla.Producer(bearers.bootstrap, sasl=ottla.OAuth(token=token))

    with made() as producer:
        while len(asked) < 3:
            gc.collect()
            producer.send("t", b"x").result(timeout=DEADLINE)


def test_threads_that_make_handles_at_once_have_one_login(bearers: ottla.testing.Broker) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(threading.current_thread().name)
        return "a.b.c"

    sasl = ottla.OAuth(token=token)
    together = threading.Barrier(8)

    def make() -> ottla.Producer:
        together.wait(DEADLINE)
        return ottla.Producer(bearers.bootstrap, sasl=sasl)

    with ThreadPoolExecutor(8) as pool:
        producers = [made.result(DEADLINE) for made in [pool.submit(make) for _ in range(8)]]
    for producer in producers:
        producer.close()
    assert len(asked) == 1


def test_an_error_in_the_thread_that_asks_ends_one_request(
    bearers: ottla.testing.Broker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patched:
        patched.setattr(_tokens._desk, "_on_thread", broken)
        with pytest.raises(ottla.CredentialsError, match="RuntimeError: injected"):
            sasl = ottla.OAuth(token=lambda: "a.b.c")
            ottla.Producer(bearers.bootstrap, sasl=sasl, connect_timeout=0.5)
    assert "injected" in capsys.readouterr().err
    goes_in_and_out(bearers, ottla.OAuth(token=lambda: "a.b.c"))


def test_who_makes_a_handle_waits_for_no_thread_that_starts() -> None:
    """It may be a signal's handler, in the middle of just that."""
    desk, provider = _tokens._Desk(), _tokens.Provider(lambda: "t")
    _, tag = desk.enter(provider)
    with desk.starting:
        desk.used(tag)
        assert desk.thread is None
    desk.used(tag)
    thread = desk.thread
    assert thread is not None and thread.is_alive()
    desk.end()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    desk.used(tag)
    assert desk.thread is thread


FORK = """
import os, sys, warnings
import ottla, ottla.testing
warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
broker = ottla.testing.Broker(mechanisms=["OAUTHBEARER"])
broker.create_topic("t")
broker.add_token("a.b.c", "alice")
bootstrap = broker.bootstrap
asked = []

def token():
    asked.append(os.getpid())
    return "a.b.c"

sasl = ottla.OAuth(token=token)
producer = ottla.Producer(bootstrap, sasl=sasl)
producer.send("t", b"x").result(timeout=30)
assert asked == [os.getpid()], asked
pid = os.fork()
if pid == 0:
    asked.clear()
    # A setting is no handle: it is good in the child, which asks for itself.
    with ottla.Producer(bootstrap, sasl=sasl) as mine:
        mine.send("t", b"x").result(timeout=30)
    assert asked == [os.getpid()], asked
    try:
        producer.send("t", b"x")
    except ottla.ForkedClientError:
        sys.exit(0)
    sys.exit(1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
producer.send("t", b"x").result(timeout=30)
assert len(asked) == 1, asked
"""


def test_a_forked_child_asks_for_itself(program: Callable[..., Program]) -> None:
    assert program(FORK).end() == (0, "", "")


def test_who_gives_no_function_has_no_thread() -> None:
    assert isinstance(_tokens.is_async(lambda: "t"), bool)
    before = threading.active_count()
    ottla.OAuth(token=lambda: "t")
    ottla.OAuth(file="/t")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: untyped.OAuth(), TypeError, "one of source .*, token and file"),
        (lambda: untyped.OAuth(token="t", file="/t"), TypeError, "one of source .*, token and file"),
        (lambda: untyped.OAuth(CANARY), TypeError, "ottla.ClientCredentials, not str"),
        (lambda: untyped.OAuth(token=7), TypeError, "not int"),
        (lambda: untyped.OAuth(file=7), TypeError, "file must be a path, not int"),
        (lambda: untyped.OAuth(token="t", extensions=CANARY), TypeError, "a dict of str, not str"),
        (lambda: untyped.OAuth(token="t", extensions={"a": 7}), TypeError, "must be str, not int"),
        (lambda: ottla.OAuth(token="t", extensions={"auth": CANARY}), ottla.ConfigError, "extension"),
        (lambda: ottla.OAuth(token=f"{CANARY}ü"), ottla.ConfigError, "none can have"),
        (lambda: ottla.OAuth(file=""), ottla.ConfigError, "no name"),
        (lambda: of_url(f"https://me:{CANARY}@idp/"), ottla.ConfigError, "'@'"),
        (lambda: of_url("https://idp/", None), ottla.ConfigError, "secret is missing"),
        (
            lambda: of_url("https://idp/", client_secret_file="/s"),
            ottla.ConfigError,
            "a client secret and a file",
        ),
        (lambda: ottla.Token("t", expires_in=1, expires_at=1), ottla.InvalidArgumentError, "not both"),
        (lambda: ottla.Token("t", expires_at=1e12), ottla.InvalidArgumentError, "not in ms"),
        (lambda: ottla.Token("t", expires_at=float("nan")), ottla.InvalidArgumentError, "seconds"),
        (lambda: untyped.Token(7), TypeError, "token must be a str or bytes, not int"),
        (lambda: untyped.Token("t", expires_at="x"), TypeError, "seconds since 1970 or a datetime"),
    ],
)
def test_what_can_not_be(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert CANARY not in str(caught.value) + repr(caught.value)
