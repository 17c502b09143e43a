"""Fixtures for pytest: a Kafka cluster or a schema registry for a test, in its process, up in milliseconds. Known to pytest once the package is
installed.

    def test_it(ottla_broker):
        ottla_broker.create_topic("events", partitions=12)
        with ottla.Producer(ottla_broker.bootstrap) as producer:
            ...

    @pytest.mark.ottla(tls=True, sasl={"alice": "her password"})
    def test_a_login(ottla_cluster):
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ottla.testing import Broker

if TYPE_CHECKING:
    from ottla.testing import SchemaRegistry

__all__ = ["ottla_broker", "ottla_cluster", "ottla_schema_registry", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "ottla(**settings): settings of ottla.testing.Broker for ottla_broker and ottla_cluster of this test",
    )


def _started(request: pytest.FixtureRequest, brokers: int) -> Iterator[Broker]:
    settings: dict[str, Any] = {"brokers": brokers}
    # The nearest one counts last: a test's own over its class's and its module's.
    for marker in reversed(list(request.node.iter_markers("ottla"))):
        if marker.args:
            raise pytest.UsageError(
                f"@pytest.mark.ottla takes keywords, those of ottla.testing.Broker, and not {marker.args!r}"
            )
        settings |= marker.kwargs
    with Broker(**settings) as broker:
        yield broker


@pytest.fixture
def ottla_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A Kafka cluster of one broker for this test alone, without topics; an ottla.testing.Broker."""
    yield from _started(request, 1)


@pytest.fixture
def ottla_cluster(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A Kafka cluster of three brokers for this test alone, without topics; an ottla.testing.Broker."""
    yield from _started(request, 3)


@pytest.fixture
def ottla_schema_registry() -> Iterator[SchemaRegistry]:
    """A schema registry for this test alone, without schemas; an ottla.testing.SchemaRegistry."""
    from ottla.testing import SchemaRegistry

    with SchemaRegistry() as registry:
        yield registry
