"""TLS and SASL from Python, on brokers that have them; and that a secret is shown nowhere."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE, until

import ottla
import ottla.testing

CANARY = "hunter2-Zm9v"
# What is given wrong on purpose is not for the type checker.
untyped: Any = ottla
USERS = {"alice": CANARY}

MECHANISMS: dict[str, Callable[[str, str], ottla.Plain | ottla.Scram]] = {
    "PLAIN": ottla.Plain,
    "SCRAM-SHA-256": lambda user, password: ottla.Scram("SHA-256", user, password),
    "SCRAM-SHA-512": lambda user, password: ottla.Scram("SHA-512", user, password),
}


@pytest.fixture(scope="module")
def secure() -> Iterator[ottla.testing.Broker]:
    """TLS, and users."""
    with ottla.testing.Broker(tls=True, sasl=USERS) as broker:
        broker.create_topic("t")
        yield broker


@pytest.fixture(scope="module")
def listening() -> Iterator[ottla.testing.Broker]:
    """Users, without TLS."""
    with ottla.testing.Broker(sasl=USERS) as broker:
        broker.create_topic("t")
        yield broker


def trusting(broker: ottla.testing.Broker) -> ottla.Tls:
    assert broker.ca is not None
    return ottla.Tls(ca=broker.ca)


def goes_in_and_out(bootstrap: str, **settings: Any) -> None:
    with ottla.Producer(bootstrap, **settings) as producer:
        at = producer.send("t", b"in").result(timeout=DEADLINE)
    with ottla.Consumer(bootstrap, assignment=[("t", 0, at.offset)], **settings) as consumer:
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.value == b"in"
    assert ottla.Admin(bootstrap, **settings).partitions("t") == 1


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plaintext"])
def test_records_go_in_and_out_by_every_mechanism(
    secure: ottla.testing.Broker, listening: ottla.testing.Broker, mechanism: str, tls: bool
) -> None:
    sasl = MECHANISMS[mechanism]("alice", CANARY)
    if tls:
        goes_in_and_out(secure.bootstrap, tls=trusting(secure), sasl=sasl)
    else:
        goes_in_and_out(listening.bootstrap, sasl=sasl)


def test_the_mechanism_is_the_one_that_is_named() -> None:
    for named, make in MECHANISMS.items():
        with ottla.testing.Broker(sasl=USERS, mechanisms=[named]) as broker:
            broker.create_topic("t")
            goes_in_and_out(broker.bootstrap, sasl=make("alice", CANARY))
            for other, wrong in MECHANISMS.items():
                if other != named:
                    with pytest.raises(ottla.AuthenticationError, match=named):
                        ottla.Producer(broker.bootstrap, sasl=wrong("alice", CANARY))


def test_a_client_shows_its_certificate(tmp_path: Path) -> None:
    with ottla.testing.Broker(tls=True, client_certificates=True) as broker:
        broker.create_topic("t")
        assert broker.ca is not None
        ca, certificate, key = tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key"
        ca.write_text(broker.ca)
        made = broker.client_identity("alice")
        certificate.write_text(made[0])
        key.write_text(made[1])
        pairs: list[tuple[Any, Any]] = [(certificate, key), made, (made[0].encode(), str(key))]
        for identity in pairs:
            goes_in_and_out(broker.bootstrap, tls=ottla.Tls(ca=ca, identity=identity))
        both = tmp_path / "both.pem"
        both.write_text(made[0] + made[1])
        goes_in_and_out(broker.bootstrap, tls=ottla.Tls(ca=str(ca), identity=(both, both)))
        with pytest.raises(ottla.TlsError, match="ertificate") as caught:
            ottla.Producer(broker.bootstrap, tls=ottla.Tls(ca=ca))
        assert caught.value.code == "tls"


def test_a_path_need_not_be_utf8(secure: ottla.testing.Broker, tmp_path: Path) -> None:
    assert secure.ca is not None
    path = os.fsencode(tmp_path) + b"/\xff.pem"
    try:
        Path(os.fsdecode(path)).write_text(secure.ca)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    sasl = ottla.Plain("alice", CANARY)
    for ca in (os.fsdecode(path), Path(os.fsdecode(path))):
        goes_in_and_out(secure.bootstrap, tls=ottla.Tls(ca=ca), sasl=sasl)


def test_what_is_checked_of_a_certificate(secure: ottla.testing.Broker) -> None:
    sasl = ottla.Plain("alice", CANARY)

    def connect(**tls: Any) -> None:
        ottla.Producer(secure.bootstrap, tls=ottla.Tls(**tls), sasl=sasl).close()

    name = {"server_name": "somewhere.else"}
    connect(ca=secure.ca, verify="full")
    with pytest.raises(ottla.TlsError, match="somewhere.else"):
        connect(ca=secure.ca, **name)
    connect(ca=secure.ca, verify="chain", **name)
    with ottla.testing.Broker(tls=True) as other:
        for verify in ("full", "chain"):
            with pytest.raises(ottla.TlsError) as caught:
                connect(ca=other.ca, verify=verify)
            assert not isinstance(caught.value, ottla.RetriableError) and caught.value.advice
        connect(ca=other.ca, verify="none")


def logins(broker: ottla.testing.Broker, make: Callable[[], object]) -> int:
    """How many logins it takes to be refused."""
    before, _ = broker.logins()
    with pytest.raises(ottla.AuthenticationError, match="Authentication failed") as caught:
        make()
    error = caught.value
    assert error.code == "authentication" and error.broker_code == 58
    assert error.fatal and not error.retriable and "wrong" not in str(error)
    return broker.logins()[0] - before


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_is_one_login(secure: ottla.testing.Broker, mechanism: str) -> None:
    # A broker that is tried again until connect_timeout would be tried until this test is ended.
    settings: dict[str, Any] = {"tls": trusting(secure), "connect_timeout": 3600}
    sasl = MECHANISMS[mechanism]("alice", "wrong")
    assert logins(secure, lambda: ottla.Producer(secure.bootstrap, sasl=sasl, **settings)) == 1


def test_consumers_and_admins_log_in_too(listening: ottla.testing.Broker) -> None:
    # With credentials of their own: what another client has just learned is known to the process.
    bootstrap = listening.bootstrap
    sasl = [ottla.Plain(f"nobody-{number}", "wrong") for number in range(3)]
    assert logins(listening, lambda: ottla.Consumer(bootstrap, topics=["t"], sasl=sasl[0])) == 1
    assert logins(listening, lambda: ottla.Admin(bootstrap, sasl=sasl[1])) == 1
    assert logins(listening, lambda: ottla.create_topic(bootstrap, "new", sasl=sasl[2])) == 1
    ottla.create_topic(bootstrap, "new", 2, sasl=ottla.Plain("alice", CANARY))


def test_a_password_that_is_changed(listening: ottla.testing.Broker) -> None:
    listening.set_user("bob", "first")
    ottla.Admin(listening.bootstrap, sasl=ottla.Scram("SHA-256", "bob", "first"))
    listening.set_user("carol", b"\xc3\xa9".decode())
    ottla.Admin(listening.bootstrap, sasl=ottla.Scram("SHA-512", "carol", b"\xc3\xa9"))


def test_the_wrong_listener(secure: ottla.testing.Broker, broker: ottla.testing.Broker) -> None:
    sasl = ottla.Plain("alice", CANARY)
    with pytest.raises(ottla.NotKafkaError, match="TLS"):
        ottla.Producer(secure.bootstrap)
    with pytest.raises(ottla.TlsError, match="without TLS"):
        ottla.Producer(broker.bootstrap, tls=trusting(secure), connect_timeout=0.5)
    with pytest.raises(ottla.AuthenticationError, match="no SASL"):
        ottla.Producer(broker.bootstrap, sasl=sasl)
    # It answers what it can do, and hangs up on the first request.
    admin = ottla.Admin(secure.bootstrap, tls=trusting(secure), request_timeout=1)
    with pytest.raises(ottla.Error, match="SASL"):
        admin.partitions("t")


def test_rights() -> None:
    sasl = ottla.Plain("alice", CANARY)
    acls = {"alice": ["write t", "describe u"]}
    with ottla.testing.Broker(sasl=USERS, acls=acls) as broker:
        broker.create_topic("t")
        broker.create_topic("u")
        with ottla.Producer(broker.bootstrap, sasl=sasl) as producer:
            producer.send("t", b"x").result(timeout=DEADLINE)
            with pytest.raises(ottla.AuthorizationError, match="u"):
                producer.send("u", b"x").result(timeout=DEADLINE)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_properties(secure: ottla.testing.Broker, tmp_path: Path, mechanism: str) -> None:
    assert secure.ca is not None
    ca = tmp_path / "ca.pem"
    ca.write_text(secure.ca)
    base = {
        "bootstrap.servers": secure.bootstrap,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
    }
    module = "Plain" if mechanism == "PLAIN" else "Scram"
    jaas = f'x.{module}LoginModule required username="alice" password="{CANARY}";'
    for properties in (
        {**base, "ssl.ca.location": ca, "sasl.username": "alice", "sasl.password": CANARY},
        {**base, "ssl.truststore.certificates": secure.ca, "sasl.jaas.config": jaas},
    ):
        with ottla.Producer.from_properties(properties) as producer:
            at = producer.send("t", b"p").result(timeout=DEADLINE)
        with ottla.Consumer.from_properties(properties, assignment=[("t", 0, at.offset)]) as consumer:
            record = consumer.next(timeout=DEADLINE)
            assert record is not None and record.value == b"p"
        assert ottla.Admin.from_properties(properties).partitions("t") == 1
    # Keywords go before them.
    wrong = {**base, "ssl.ca.pem": secure.ca, "sasl.username": "alice", "sasl.password": "wrong"}
    ottla.Admin.from_properties(wrong, sasl=ottla.Plain("alice", CANARY))
    ottla.Admin.from_properties(
        {**wrong, "sasl.password": CANARY, "ssl.ca.pem": "nonsense"}, tls=trusting(secure)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: untyped.Plain("", CANARY), "user name is empty"),
        (lambda: untyped.Plain("alice", ""), "password is empty"),
        (lambda: untyped.Plain("alice", CANARY + "\0"), "NUL"),
        (lambda: untyped.Scram("SHA-256", "älice", CANARY), "printable ASCII"),
        (lambda: untyped.Scram(CANARY, "alice", "x"), "neither 'SHA-256' nor 'SHA-512'"),
        (lambda: untyped.Tls(verify="off"), "'full', 'chain' and 'none'"),
        (lambda: untyped.Tls(server_name="no name"), "server_name"),
        (lambda: untyped.Producer("h", tls=untyped.Tls(ca="/no/such.pem")), "/no/such.pem"),
        (lambda: untyped.Producer("h", tls=untyped.Tls(ca=CANARY.encode())), "no certificate"),
        (lambda: untyped.Producer("h", tls=untyped.Tls(ca="-----BEGIN X\n" + CANARY)), "ca"),
        (lambda: untyped.testing.Broker(client_certificates=True), "need TLS"),
        (lambda: untyped.testing.Broker(mechanisms=["GSSAPI"]), "GSSAPI"),
        (lambda: untyped.testing.Broker(acls={"alice": ["sing"]}), "'sing' is no right"),
    ],
)
def test_what_is_refused(make: Any, words: str) -> None:
    with pytest.raises((ottla.ConfigError, ottla.InvalidArgumentError), match=words) as caught:
        make()
    assert CANARY not in str(caught.value) and CANARY not in repr(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: untyped.Plain("alice", 7), "password must be a str or bytes, not int"),
        (lambda: untyped.Plain("alice", CANARY + "\udc80"), "password has surrogates"),
        (lambda: untyped.Scram("SHA-256", "alice", [CANARY]), "password must be a str or bytes, not list"),
        (lambda: untyped.Tls(ca=7), "ca must be a path or PEM text, not int"),
        (lambda: untyped.Tls(identity="client.pem"), "identity must be a tuple, .* not str"),
        (lambda: untyped.Tls(identity=("client.pem", None)), "the key of identity must be .* not NoneType"),
        (lambda: untyped.Tls(verify=False), "verify must be a str, not bool"),
        (lambda: untyped.Tls("ca.pem"), "positional"),
        (lambda: untyped.Producer("h", tls=True), "tls must be an ottla.Tls, not bool"),
        (lambda: untyped.Producer("h", sasl=("alice", CANARY)), "an ottla.OAuth, not tuple"),
        (lambda: untyped.Consumer("h", topics=["t"], sasl=CANARY), "an ottla.OAuth, not str"),
        (lambda: untyped.Admin("h", tls="ca.pem"), "tls must be an ottla.Tls, not str"),
    ],
)
def test_what_is_no_such_thing(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        make()
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
    assert CANARY not in shown


PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"
OBJECTS = [
    ottla.Plain("alice", CANARY),
    ottla.Plain("alice", CANARY.encode()),
    ottla.Scram("SHA-256", "alice", CANARY),
    ottla.Scram("SHA-512", "alice", CANARY, delegation_token=True),
    ottla.ClientCredentials(f"https://idp/?k={CANARY}", "me", CANARY, params={"a": CANARY}),
    ottla.OAuth(ottla.ClientCredentials("https://idp/", "me", CANARY)),
    ottla.OAuth(token=CANARY),
    ottla.Token(CANARY, extensions={"a": CANARY}),
    ottla.Tls(ca=PEM, identity=(PEM, PEM.encode())),
    # The text of a key where a path belongs.
    ottla.Tls(ca=Path(PEM)),
]


@pytest.mark.parametrize("secretive", OBJECTS, ids=[type(o).__name__ for o in OBJECTS])
def test_an_object_shows_no_secret(secretive: Any) -> None:
    shown = [repr(secretive), str(secretive), f"{secretive}", "%r %s" % (secretive, [secretive])]
    shown += [repr(getattr(secretive, name)) for name in dir(secretive) if name != "__doc__"]
    assert not any(CANARY in text for text in shown), shown
    assert not hasattr(secretive, "__dict__")
    for away in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            away(secretive)
    assert not any(isinstance(held, str) and CANARY in held for held in gc.get_referents(secretive))


def test_what_an_object_shows() -> None:
    assert repr(ottla.Plain("alice", CANARY)) == 'ottla.Plain("alice", ***)'
    token = ottla.Scram("SHA-512", "id", CANARY, delegation_token=True)
    assert repr(token) == 'ottla.Scram("SHA-512", "id", ***, delegation_token=True)'
    tls = ottla.Tls(ca="ca.pem", identity=("c.pem", PEM), server_name="kafka", verify="chain")
    assert repr(tls) == (
        'ottla.Tls(ca="ca.pem", identity=("c.pem", ***), server_name="kafka", verify="chain")'
    )
    assert repr(ottla.Tls()) == "ottla.Tls()"
    credentials = ottla.ClientCredentials("https://idp/", "me", CANARY)
    assert repr(credentials) == 'ottla.ClientCredentials(.., "me", ***)'
    assert repr(ottla.OAuth(file="/run/token")) == 'ottla.OAuth(file="/run/token")'
    assert repr(ottla.OAuth(token=lambda: CANARY)) == "ottla.OAuth(token=<function>)"


def test_nothing_that_is_said_has_the_secret(
    secure: ottla.testing.Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs at their most talkative, errors, and statistics, of what goes well and of what does not."""
    caplog.set_level(5, logger="ottla")
    for level in ("ottla", "ottla.net", "ottla.cluster"):
        logging.getLogger(level).setLevel(5)
    said: list[str] = []
    tls = trusting(secure)
    for make in MECHANISMS.values():
        with ottla.Producer(secure.bootstrap, tls=tls, sasl=make("alice", CANARY)) as producer:
            producer.send("t", b"x").result(timeout=DEADLINE)
            said += [repr(producer), repr(producer.stats())]
        wrong = make("alice", f"x{CANARY}")
        with pytest.raises(ottla.AuthenticationError) as caught:
            ottla.Producer(secure.bootstrap, tls=tls, sasl=wrong)
        # Without the frames, which show the source of this test.
        said += [str(caught.value), repr(caught.value), repr(caught.value.__dict__)]
    properties = {"security.protocol": "SASL_SSL", "sasl.mechanism": "X", "sasl.password": CANARY}
    with pytest.raises(ottla.ConfigError) as refused:
        ottla.Producer.from_properties(properties)
    said += [str(refused.value), repr(refused.value)]
    until(lambda: bool(caplog.records), "something is logged")
    said += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    assert said and not any(CANARY in text for text in said)
    for level in ("ottla", "ottla.net", "ottla.cluster"):
        logging.getLogger(level).setLevel(logging.NOTSET)


def test_an_unverified_broker_is_warned_of(
    secure: ottla.testing.Broker, caplog: pytest.LogCaptureFixture
) -> None:
    sasl = ottla.Scram("SHA-256", "alice", CANARY)
    tls = ottla.Tls(verify="none", server_name="unverified")
    with ottla.Producer(secure.bootstrap, tls=tls, sasl=sasl) as producer:
        assert producer.stats()["bad_stuff"]["tls_unverified"] == 1
        until(lambda: "not verified" in caplog.text, "a warning")


def test_handles_with_equal_settings_share_connections(secure: ottla.testing.Broker) -> None:
    before, _ = secure.logins()
    settings: dict[str, Any] = {"tls": trusting(secure), "sasl": ottla.Plain("alice", CANARY)}
    with (
        ottla.Producer(secure.bootstrap, **settings) as producer,
        ottla.Consumer(secure.bootstrap, topics=["t"], **settings),
    ):
        again: dict[str, Any] = {"tls": trusting(secure), "sasl": ottla.Plain("alice", CANARY)}
        ottla.Admin(secure.bootstrap, **again).partitions("t")
        producer.send("t", b"x").result(timeout=DEADLINE)
        # One for what is asked, one for records that go out, one for those that come in: not one for each handle.
        assert secure.logins()[0] - before <= 3
