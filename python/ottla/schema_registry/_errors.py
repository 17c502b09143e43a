"""What a schema registry, or the way to it, says no with."""

from __future__ import annotations

from ottla._errors import Error, RetriableError


class RegistryError(Error):
    """Base of what is raised about a schema registry. Its message has the registry's own words, and no secret."""

    status: int | None
    """The status of HTTP, if the registry answered."""
    error_code: int | None
    """The registry's own code, which is finer: 40403 is a schema that is not there."""

    _code = "schema_registry"
    _advice = "look at the registry's log"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_code: int | None = None,
        advice: str | None = None,
        retriable: bool | None = None,
    ) -> None:
        super().__init__(message, advice=advice, retriable=retriable)
        self.status = status
        self.error_code = error_code


class RegistryUnavailableError(RegistryError, RetriableError):
    """No registry of the list answered, or each failed (5xx), as often as it was asked. The same call may succeed later."""

    _code = "schema_registry_unavailable"
    _advice = "see that the registry runs and can be reached; the same call may succeed later"


class SchemaNotFoundError(RegistryError):
    """The registry knows no such schema, subject or version (404). It was asked once, and is not asked again for
    `missing_ttl`."""

    _code = "schema_not_found"
    _advice = "register the schema, or see that this is the registry that the producer of the record used"


class IncompatibleSchemaError(RegistryError):
    """The schema does not go with those that are registered before it (409)."""

    _code = "schema_incompatible"
    _advice = "change the schema so that it agrees with the compatibility of its subject"


class InvalidSchemaError(RegistryError):
    """The schema, a subject or a version is not valid, to the registry (422) or here."""

    _code = "schema_invalid"
    _advice = "correct the schema"


class RegistryAuthError(RegistryError):
    """The registry refused the credentials, or what was asked with them (401, 403)."""

    _code = "schema_registry_auth"
    _advice = "correct auth=, or the rights of that user"


for _class in (
    RegistryError,
    RegistryUnavailableError,
    SchemaNotFoundError,
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryAuthError,
):
    _class.__module__ = "ottla.schema_registry"
