"""A schema registry inside a test: the paths of Confluent's REST interface that clients use, and faults.

It stands alone, on the standard library: tools can load it without the engine.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["SchemaRegistry"]


class _Version(NamedTuple):
    version: int
    id: int
    # What it was registered with: schema, schemaType, references.
    body: dict[str, Any]


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class _Fault(NamedTuple):
    status: int
    code: int
    message: str
    path: str


class SchemaRegistry:
    """A schema registry in this process, of a test alone. Any client of Confluent's REST interface can use it.

        with ottla.testing.SchemaRegistry() as registry:
            client = ottla.schema_registry.RegistryClient(registry.url)

    It takes every schema that is JSON, or for Protobuf any text, and finds all of them compatible: `refuse` makes it say no.

    first_id: the id of the first schema. Each schema has one of its own in each context.
    user: a user and a password that are wanted of everybody, token: a bearer token.
    tls: for https, a context with a certificate.
    """

    def __init__(
        self,
        *,
        first_id: int = 1,
        user: tuple[str, str] | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._first_id = first_id
        self._wanted: set[str] = set()
        if user is not None:
            self._wanted.add("Basic " + base64.b64encode(":".join(user).encode()).decode())
        if token is not None:
            self._wanted.add(f"Bearer {token}")
        self._ids: dict[str, dict[int, dict[str, Any]]] = {}
        self._subjects: dict[str, list[_Version]] = {}
        self._requests: list[tuple[str, str]] = []
        self._faults: list[_Fault] = []
        self._drops = 0
        self._refused: set[str] = set()
        self._gate = threading.Event()
        self._gate.set()
        self._waiting = 0
        self._arrived = threading.Condition(self._lock)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="ottla-schema-registry", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Of this registry: `http://127.0.0.1:PORT`."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[tuple[str, str]]:
        """What was asked so far: method, and path with its options."""
        with self._lock:
            return list(self._requests)

    def register(
        self,
        subject: str,
        schema: str,
        type: Literal["AVRO", "JSON", "PROTOBUF"] = "AVRO",  # noqa: A002 - it is called so there
        references: Sequence[tuple[str, str, int]] = (),
    ) -> int:
        """Registers a schema without a request, also one that a registry would refuse; its id."""
        body: dict[str, Any] = {"schema": schema, "schemaType": type}
        if references:
            body["references"] = [
                {"name": name, "subject": of, "version": version} for name, of, version in references
            ]
        with self._lock:
            return self._add(subject, body, normalize=False).id

    def versions(self, subject: str) -> list[tuple[int, int, str]]:
        """The versions of a subject: number, id and schema."""
        with self._lock:
            return [(one.version, one.id, one.body["schema"]) for one in self._subjects.get(subject, [])]

    def fail(
        self,
        status: int,
        *,
        times: int = 1,
        path: str = "",
        error_code: int | None = None,
        message: str = "planted by a test",
    ) -> None:
        """Answers the next requests whose path begins so with an error, whatever they are: 401, 404, 409, 422, 500 and so on.
        What was said before comes first. `error_code` is the status with two zeros behind it if not said, as 50000."""
        code = status * 100 if error_code is None else error_code
        with self._lock:
            self._faults += [_Fault(status, code, message, path)] * times

    def drop(self, times: int = 1) -> None:
        """Closes the connections of the next requests without an answer."""
        with self._lock:
            self._drops += times

    def refuse(self, subject: str) -> None:
        """Finds no other schema compatible with those of a subject (409)."""
        with self._lock:
            self._refused.add(subject)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Answers nobody inside the block: requests that come wait for its end, or for that of the registry."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def wait_for_requests(self, waiting: int, timeout: float = 30) -> None:
        """Waits until so many requests wait for the end of `slow`.

        Raises TimeoutError.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._waiting >= waiting, timeout):
                raise TimeoutError(f"{self._waiting} of {waiting} requests came within {timeout} s")

    def close(self) -> None:
        """Ends it. Connections that are open end with it."""
        self._gate.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()

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

    def _answer(self, method: str, target: str, authorization: str | None, body: bytes) -> tuple[int, Any] | None:
        """Status and answer, or None for none at all."""
        with self._arrived:
            self._requests.append((method, target))
            self._waiting += 1
            self._arrived.notify_all()
        self._gate.wait()
        with self._lock:
            self._waiting -= 1
            if self._drops:
                self._drops -= 1
                return None
            for place, fault in enumerate(self._faults):
                if target.startswith(fault.path):
                    del self._faults[place]
                    return fault.status, {"error_code": fault.code, "message": fault.message}
            if self._wanted and authorization not in self._wanted:
                return 401, {"error_code": 40101, "message": "Unauthorized"}
            try:
                return 200, self._route(method, target, body)
            except _Refused as refused:
                return refused.status, {"error_code": refused.code, "message": refused.message}

    def _route(self, method: str, target: str, body: bytes) -> Any:
        parts = urlsplit(target)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        given: Any = json.loads(body) if body else {}
        normalize = options.get("normalize") == "true"
        match method, path:
            case "GET", ["schemas", "types"]:
                return ["JSON", "PROTOBUF", "AVRO"]
            case "GET", ["schemas", "ids", number]:
                found = self._ids.get(_context(options.get("subject", "")), {}).get(int(number))
                if found is None:
                    raise _Refused(404, 40403, f"Schema {number} not found")
                return _shown(found)
            case "GET", ["subjects"]:
                return [name for name in self._subjects if name.startswith(options.get("subjectPrefix", ""))]
            case "POST", ["subjects", subject, "versions"]:
                added = self._add_checked(subject, given, normalize)
                return {"id": added.id, "version": added.version, **_shown(added.body)}
            case "POST", ["subjects", subject]:
                for one in self._versions(subject):
                    if _canonical(one.body, normalize) == _canonical(given, normalize):
                        return self._version(subject, one)
                raise _Refused(404, 40403, "Schema not found")
            case "GET", ["subjects", subject, "versions"]:
                return [one.version for one in self._versions(subject)]
            case "GET", ["subjects", subject, "versions", number]:
                return self._version(subject, self._numbered(subject, number))
            case "POST", ["compatibility", "subjects", subject, "versions", number]:
                self._numbered(subject, number)
                return {"is_compatible": subject not in self._refused}
            case "GET", ["config", *_]:
                return {"compatibilityLevel": "BACKWARD"}
            case _:
                raise _Refused(404, 404, "HTTP 404 Not Found")

    def _versions(self, subject: str) -> list[_Version]:
        found = self._subjects.get(subject)
        if not found:
            raise _Refused(404, 40401, f"Subject '{subject}' not found.")
        return found

    def _numbered(self, subject: str, number: str) -> _Version:
        versions = self._versions(subject)
        if number == "latest":
            return versions[-1]
        if not number.isdigit() or number == "0":
            raise _Refused(422, 42202, f"The specified version '{number}' is not a valid version id.")
        for one in versions:
            if one.version == int(number):
                return one
        raise _Refused(404, 40402, f"Version {number} not found.")

    @staticmethod
    def _version(subject: str, one: _Version) -> dict[str, Any]:
        return {"subject": subject, "version": one.version, "id": one.id, **_shown(one.body)}

    def _add_checked(self, subject: str, body: dict[str, Any], normalize: bool) -> _Version:
        kind = body.get("schemaType", "AVRO")
        text = body.get("schema")
        if not isinstance(text, str) or not text:
            raise _Refused(422, 42201, "Invalid schema: empty")
        if kind != "PROTOBUF":
            try:
                json.loads(text)
            except ValueError:
                raise _Refused(422, 42201, f"Invalid schema of type {kind}: it is not JSON") from None
        for reference in body.get("references") or []:
            try:
                self._numbered(reference["subject"], str(reference["version"]))
            except _Refused:
                raise _Refused(422, 42201, f"No schema reference found for subject \"{reference['subject']}\"") from None
        if subject in self._refused:
            raise _Refused(409, 409, f"Schema being registered is incompatible with an earlier schema for subject {subject}")
        return self._add(subject, body, normalize)

    def _add(self, subject: str, body: dict[str, Any], normalize: bool) -> _Version:
        wanted = _canonical(body, normalize)
        versions = self._subjects.setdefault(subject, [])
        for one in versions:
            if _canonical(one.body, normalize) == wanted:
                return one
        ids = self._ids.setdefault(_context(subject), {})
        for number, known in ids.items():
            if _canonical(known, normalize) == wanted:
                break
        else:
            number = max(ids, default=self._first_id - 1) + 1
            ids[number] = body
        added = _Version(versions[-1].version + 1 if versions else 1, number, body)
        versions.append(added)
        return added


def _context(subject: str) -> str:
    found = re.match(r":\.([^:]*):", subject)
    return found[1] if found else ""


def _canonical(body: dict[str, Any], normalize: bool) -> str:
    kind, text = body.get("schemaType", "AVRO"), body["schema"]
    if kind != "PROTOBUF":
        with contextlib.suppress(ValueError):
            text = json.dumps(json.loads(text), sort_keys=normalize)
    return json.dumps([kind, text, body.get("references") or []])


def _shown(body: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"schema": body["schema"]}
    if (kind := body.get("schemaType", "AVRO")) != "AVRO":
        shown["schemaType"] = kind
    if references := body.get("references"):
        shown["references"] = references
    return shown


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    registry: SchemaRegistry

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        self._open_lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is no news in a test.
        pass

    def end_connections(self) -> None:
        with self._open_lock:
            still = list(self._open)
        for request in still:
            with contextlib.suppress(OSError):
                request.shutdown(2)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.registry._answer(  # pyright: ignore[reportPrivateUsage]
            self.command, self.path, self.headers.get("Authorization"), body
        )
        if answer is None:
            self.close_connection = True
            return
        status, content = answer
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - BaseHTTPRequestHandler looks for these

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the base
        pass
