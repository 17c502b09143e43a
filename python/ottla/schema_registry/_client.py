"""The client of a schema registry. It reads and registers; it deletes nothing."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, cast
from urllib.parse import quote

from ottla._errors import ConfigError
from ottla.schema_registry._cache import Cache
from ottla.schema_registry._errors import InvalidSchemaError, RegistryError, SchemaNotFoundError
from ottla.schema_registry._http import Auth, Transport
from ottla.schema_registry._schema import Reference, Registered, Schema

MAX_REFERENCES: Final = 1_000
"""Schemas that a schema may need, all of them counted once. It is what a registry says, and a wrong one must come to an end."""

MAX_ID: Final = (1 << 31) - 1
"""The largest id of a schema."""

MAX_DEPTH: Final = 32
"""Schemas that need schemas that need schemas."""

_TYPES: Final = ("AVRO", "JSON", "PROTOBUF")
_CONTEXT: Final = re.compile(r"[^:/?#\s]+")
_Seconds: TypeAlias = float | timedelta


class RegistryClient:
    """A schema registry with the REST interface of Confluent's, and what it said, for any number of threads.

        with RegistryClient("http://localhost:8081") as registry:
            registry.register("orders-value", Schema('{"type": "record", ...}'))

    What is known is not asked for again: a schema of an id for good, the latest version of a subject for `latest_ttl`. Of threads
    that want the same one asks. A client is made without a registry; it connects when it is asked.

    urls: of registries that are one: the one that answered last is asked first, the others when it does not.
    auth: `Basic(user, password)` or `Bearer(token)`; or a user and a password in the URLs.
    tls: for https, an `ssl.SSLContext`, with a client certificate if one is wanted; the system's CAs without it.
    context: of all subjects that name none; `"staging"` makes `:.staging:orders-value` of `orders-value`.
    timeout: for one request, in seconds or as a timedelta, 0.01 to 3,600, 10 if not said.
        All attempts of a call together take twice that, or that for each URL if there are more than two.
    retries: how often a request that met no registry, or a status from 500, is made again, 0 to 20, 3 if not said. Each URL is
        asked once, whatever is said here; after that there are waits of up to 0.1 s, 0.2 s and so on, 2 s at most. Nothing else
        is tried again.
    latest_ttl: seconds for which the latest version of a subject is believed to be that; 0 to a day, 300 if not said. While no
        registry answers it is believed for longer.
    missing_ttl: seconds for which it is believed that there is no such schema; 0 to 3,600, 5 if not said.
    cache_size: how many schemas, ids and subjects are kept, of each those that were used last; 1 to 1,000,000, 1,000 if not said.
    headers: for each request, beside those that are needed, in ASCII.

    Proxies of the environment are not used, and redirections not followed.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        auth: Auth | None = None,
        tls: ssl.SSLContext | None = None,
        context: str | None = None,
        timeout: _Seconds = 10,
        retries: int = 3,
        latest_ttl: _Seconds = 300,
        missing_ttl: _Seconds = 5,
        cache_size: int = 1_000,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._transport = Transport(
            urls,
            auth=auth,
            tls=tls,
            timeout=_within("timeout", timeout, 0.01, 3_600),
            retries=int(_within("retries", retries, 0, 20)),
            headers=headers or {},
        )
        self._context = _context(context)
        size = int(_within("cache_size", cache_size, 1, 1_000_000))
        missing = _within("missing_ttl", missing_ttl, 0, 3_600)
        self._cache_size = size
        self._schemas: Cache[tuple[int, str, str | None], Schema] = Cache(size, missing_ttl=missing)
        self._ids: Cache[tuple[str, bool, bool, Schema], Registered] = Cache(size, missing_ttl=missing)
        self._versions: Cache[tuple[str, int], Registered] = Cache(size, missing_ttl=missing)
        latest = _within("latest_ttl", latest_ttl, 0, 86_400)
        self._latest: Cache[str, Registered] = Cache(size, ttl=latest, missing_ttl=missing)

    @property
    def urls(self) -> list[str]:
        """Of the registries, without what is secret in them."""
        return self._transport.names

    def __repr__(self) -> str:
        return f"<ottla.schema_registry.RegistryClient of {', '.join(self.urls)}>"

    def schema(self, id: int, *, subject: str | None = None, format: str | None = None, wait: bool = True) -> Schema:
        """The schema of an id, which never changes.

        subject: one whose context the id is of; the client's context if not said.
        format: another form of its text than the one it was registered in: `"serialized"`, `"resolved"`.
        wait: False raises WouldWait where it is not known.

        Raises SchemaNotFoundError and other RegistryErrors.
        """
        if not 0 <= id <= MAX_ID:
            # Registries read it as an int of Java, and say of what is none that there is no such path. In front of a record
            # there are four bytes, which whoever writes to the topic can fill with anything.
            raise SchemaNotFoundError(f"there is no schema {id}: ids are 0 to {MAX_ID:,}")
        if subject is not None:
            subject = self._qualified(subject)
            # An id means the same in all subjects of a context.
            place = subject[: subject.rindex(":") + 1] if subject.startswith(":.") else ""
        else:
            place = self._context
        options = {"subject": place, "format": format}

        def load() -> Schema:
            answer = self._ask("GET", f"/schemas/ids/{id}", options)
            return _schema(answer)

        return self._schemas.get((id, place, format), load, wait=wait)

    def register(self, subject: str, schema: Schema, *, normalize: bool = False, wait: bool = True) -> int:
        """Registers a schema as the newest version of a subject, unless it is one; its id.

        normalize: let the registry compare what schemas mean, not what they look like.

        Raises IncompatibleSchemaError, InvalidSchemaError and other RegistryErrors, and WouldWait if not `wait` where it is not
        known whether it is registered.
        """
        return self._find(subject, schema, normalize, True, wait).id

    def lookup(self, subject: str, schema: Schema, *, normalize: bool = False, wait: bool = True) -> Registered:
        """Where a schema is among the versions of a subject.

        Raises SchemaNotFoundError if it is none, other RegistryErrors, and WouldWait if not `wait` where it is not known.
        """
        return self._find(subject, schema, normalize, False, wait)

    def _find(self, subject: str, schema: Schema, normalize: bool, register: bool, wait: bool) -> Registered:
        subject = self._qualified(subject)

        def load() -> Registered:
            path = f"/subjects/{quote(subject, safe='')}{'/versions' if register else ''}"
            answer = self._ask("POST", path, {"normalize": "true" if normalize else None}, _body(schema))
            version = answer.get("version")
            return Registered(subject, version if isinstance(version, int) else -1, _int(answer, "id"), schema)

        return self._ids.get((subject, normalize, register, schema), load, wait=wait)

    def latest(self, subject: str, *, wait: bool = True) -> Registered:
        """The newest version of a subject, as of `latest_ttl` ago at most.

        Raises what `version` raises.
        """
        subject = self._qualified(subject)
        return self._latest.get(subject, lambda: self._version(subject, "latest"), wait=wait)

    def version(self, subject: str, version: int, *, wait: bool = True) -> Registered:
        """A version of a subject.

        Raises SchemaNotFoundError and other RegistryErrors, and WouldWait if not `wait` where it is not known.
        """
        subject = self._qualified(subject)
        return self._versions.get((subject, version), lambda: self._version(subject, version), wait=wait)

    def _version(self, subject: str, version: int | str) -> Registered:
        answer = self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions/{version}", {})
        return Registered(subject, _int(answer, "version"), _int(answer, "id"), _schema(answer))

    def subjects(self) -> list[str]:
        """All subjects; those of the client's context, if it has one. Asked for each time."""
        path = _path("/subjects", {"subjectPrefix": self._context})
        answer = self._transport.ask("GET", path)
        if not isinstance(answer, list) or not all(isinstance(name, str) for name in answer):
            raise _strange("a list of subjects")
        return answer

    def is_compatible(self, subject: str, schema: Schema, version: int | str = "latest") -> bool:
        """Whether a schema goes with a version of a subject, by the compatibility that is set for it. Asked for each time."""
        path = f"/compatibility/subjects/{quote(self._qualified(subject), safe='')}/versions/{quote(str(version), safe='')}"
        return self._ask("POST", path, {}, _body(schema)).get("is_compatible") is True

    def references(self, schema: Schema, *, wait: bool = True) -> list[tuple[str, Schema]]:
        """All schemas that a schema needs, by the names it has for them, each behind those that it needs itself.

        Raises InvalidSchemaError if they go round in circles, are more than 1,000 or more than 32 deep, and RegistryErrors.
        """
        found: dict[tuple[str, str, int], Schema] = {}
        above: set[tuple[str, int]] = set()

        def visit(of: Schema, depth: int) -> None:
            if depth > MAX_DEPTH and of.references:
                raise InvalidSchemaError(f"the schema needs schemas that need schemas, more than {MAX_DEPTH} deep")
            for name, subject, version in of.references:
                if (subject, version) in above:
                    raise InvalidSchemaError(f"version {version} of subject '{subject}' needs itself")
                if (name, subject, version) in found:
                    continue
                if len(found) + len(above) >= MAX_REFERENCES:
                    raise InvalidSchemaError(f"the schema needs more than {MAX_REFERENCES} schemas")
                needed = self.version(subject, version, wait=wait).schema
                above.add((subject, version))
                visit(needed, depth + 1)
                above.discard((subject, version))
                found[name, subject, version] = needed

        visit(schema, 1)
        return [(name, needed) for (name, _, _), needed in found.items()]

    def close(self) -> None:
        """Closes connections. What is known is still known, and what is asked later connects again."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def _qualified(self, subject: str) -> str:
        return subject if subject.startswith(":.") else self._context + subject

    def _ask(self, method: str, path: str, options: Mapping[str, str | None], body: object | None = None) -> dict[str, Any]:
        answer = self._transport.ask(method, _path(path, options), body)
        if not isinstance(answer, dict):
            raise _strange("an object")
        return answer


def _path(path: str, options: Mapping[str, str | None]) -> str:
    given = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items() if value)
    return f"{path}?{given}" if given else path


def _strange(wanted: str) -> RegistryError:
    return RegistryError(
        f"the schema registry did not answer with {wanted}", advice="see that the URL is that of a schema registry"
    )


def _int(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    if not isinstance(value, int) or not 0 <= value <= MAX_ID:
        raise _strange(f"a number as its {name}")
    return value


def _schema(answer: Mapping[str, Any]) -> Schema:
    text, kind = answer.get("schema"), answer.get("schemaType") or "AVRO"
    if not isinstance(text, str) or not isinstance(kind, str):
        raise _strange("a schema")
    if kind not in _TYPES:
        raise InvalidSchemaError(f"the schema is of type '{kind[:50]}', which is not one of {', '.join(_TYPES)}")
    references: list[Reference] = []
    given = answer.get("references") or []
    if not isinstance(given, list) or len(given) > MAX_REFERENCES:
        raise _strange(f"up to {MAX_REFERENCES} references")
    for one in given:
        if not isinstance(one, dict):
            raise _strange("references")
        name, subject = one.get("name"), one.get("subject")
        if not isinstance(name, str) or not isinstance(subject, str):
            raise _strange("references with a name and a subject")
        references.append(Reference(name, subject, _int(one, "version")))
    return Schema(text, cast('Literal["AVRO", "JSON", "PROTOBUF"]', kind), tuple(references))


def _body(schema: Schema) -> dict[str, object]:
    body: dict[str, object] = {"schema": schema.text}
    if schema.type != "AVRO":
        # Registries from before there were others know no such word.
        body["schemaType"] = schema.type
    if schema.references:
        body["references"] = [one._asdict() for one in schema.references]
    return body


def _context(name: str | None) -> str:
    """What stands in front of subjects."""
    if name is None:
        return ""
    bare = name.removeprefix(":").removesuffix(":").removeprefix(".")
    if not bare:
        return ""
    if not _CONTEXT.fullmatch(bare):
        raise ConfigError(
            f"context={name!r} has characters that no context has", advice="write context='staging', without colons"
        )
    return f":.{bare}:"


def _within(name: str, value: float | timedelta, least: float, most: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} takes a number, not {type(value).__name__}")
    if not least <= seconds <= most:
        raise ConfigError(f"{name} = {seconds} is not within {least} and {most:,}")
    return seconds
