"""The results of Producer.stats() and Consumer.stats(): plain dicts, typed. Times are seconds."""

from __future__ import annotations

from typing import TypedDict


class BadStuff(TypedDict):
    """Counters of things that should not happen, over all brokers. All zero when all is well."""

    retries: int
    """Requests that exist only because an earlier one failed."""
    refused: int
    """Dials that were refused."""
    timeouts: int
    """Dials and requests that took too long."""
    dial_failures: int
    """Dials that failed in another way: no such host, TLS, authentication."""
    losses: int
    """Connections that the broker closed, or that had to be given up."""
    reconnects: int
    """Connections made in the place of a lost one."""
    errors: int
    """Answers that say that the request, or a part of it, failed."""
    throttled: int
    """Answers that asked for a pause."""
    ejections: int
    """How often a broker was taken out of use for a while."""
    metadata_per_1000_messages: float
    """Metadata requests for each 1,000 records, without first contact, new topics and refreshes."""
    records_failed: int
    """Records that resolved with an error."""
    requests_per_1000_messages: float
    """Produce requests for each 1,000 records, while nearly every one of many makes a request of its own."""
    tls_unverified: int
    """1 if TLS does not verify the certificates of brokers."""


class LatencyStats(TypedDict):
    """How long something took. Quantiles are right within 12.5 %."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class RequestStats(TypedDict):
    """Requests of one kind to one broker."""

    sent: int
    answered: int
    errors: int
    """Of the answers, those that say that the request, or a part of it, failed."""
    timeouts: int
    disconnected: int
    """Requests whose connection ended before the answer."""
    retries: int
    """Of those sent, requests that exist only because an earlier one failed."""
    bytes_out: int
    bytes_in: int
    in_flight: int
    latency: LatencyStats
    """From the request to its answer. A Fetch waits at the broker for data."""


class BrokerStats(TypedDict):
    """One broker."""

    dials: int
    connects: int
    reconnects: int
    """Of the connects, those in the place of a connection that was lost."""
    refused: int
    dial_timeouts: int
    dial_failures: int
    """Dials that failed in another way: no such host, TLS, authentication."""
    losses: int
    idle_closes: int
    connections_open: int
    ejections: int
    probes: int
    """Attempts to use the broker again while it is ejected."""
    late: int
    """How often a connection became late: its oldest request unanswered for unusually long."""
    throttled: int
    throttle_time: float
    records_acknowledged: int
    set_up: LatencyStats
    """From the dial to a connection that is ready, authentication included."""
    requests: dict[str, RequestStats]
    """By name of the request: "Produce", "Fetch" and so on."""


class MetadataReasons(TypedDict):
    """Metadata requests by what made them necessary."""

    first_contact: int
    new_topic: int
    periodic: int
    trouble: int
    """A leader is missing, or refused and named no other; a broker was lost or silent."""
    rebootstrap: int


class RetryBudgetStats(TypedDict):
    """One retry budget: retries may take no more than their share."""

    level: float | None
    """Requests that may be retried at once now; None before the first request."""
    delayed: int
    """Requests that had to wait because it was empty."""


class RetryBudgets(TypedDict):
    """The retry budgets."""

    produce: RetryBudgetStats
    fetch: RetryBudgetStats


class Stats(TypedDict):
    """Counters of all handles of this process on one cluster, added up."""

    bad_stuff: BadStuff
    """The part to look at first: all zero when all is well."""
    connects: int
    connect_failures: int
    connections_open: int
    metadata_requests: int
    metadata_reasons: MetadataReasons
    hints_applied: int
    """Leaders learnt from the answers of brokers, without asking."""
    replicas_chosen: int
    """How often a partition came to be read from a replica in this client's rack."""
    replicas_left: int
    """How often such a replica was left for the leader because of trouble."""
    produce_requests: int
    produce_retries: int
    produce_bytes: int
    produce_batches: int
    records_acknowledged: int
    records_failed: int
    records_rerouted: int
    """Records that were bound to a partition and taken to another one, unsent."""
    fetch_requests: int
    fetch_bytes: int
    records_consumed: int
    acknowledged_by_broker: dict[int, int]
    requests: dict[str, int]
    """Requests sent, of all brokers, by name: "Produce", "Metadata", and so on."""
    requests_per_1000_messages: float
    """All of these for each 1,000 records acknowledged or consumed."""
    other_requests_per_hour: dict[str, float]
    """Those that move no records, all but Produce and Fetch; of a pool younger than an hour, all so far."""
    retry_budget: RetryBudgets
    panic_entries: int
    """How often more than half of the brokers were bad at once, so that none was avoided."""
    departed: BrokerStats
    """Brokers that the cluster had once and that are forgotten since, added up."""
    brokers: dict[int, BrokerStats]
    """By broker id. Negative: a bootstrap address whose broker is not known."""
