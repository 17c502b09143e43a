"""A web service that publishes on each request: FastAPI under uvicorn, with two workers. What was accepted is in the log, also when the
service is told to stop under load.

    pip install ottla fastapi uvicorn
    python fastapi_service.py                        # a cluster in this process, the service, load, and SIGTERM
    python fastapi_service.py --bootstrap HOST:PORT  # the service alone, until it is told to stop

Each worker is a process with one producer, which all its requests share. A request is answered with 202 once its record is taken: that
costs microseconds, and no request waits for a broker. On SIGTERM uvicorn takes no more requests, finishes those that it has, and
leaves `lifespan`: that flushes. Where an answer has to say that the record is replicated, it is `send_and_wait` instead.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request, Response

import ottla
from ottla import aio

TOPIC, WORKERS = "ottla-web-orders", 2
PATIENCE = 30.0
"""Seconds for a worker to flush. A service manager that kills earlier loses what is left."""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Made here, and not when the module is imported: that is in the worker, whatever started it.
    async with aio.Producer(os.environ["OTTLA_BOOTSTRAP"], max_block=2) as producer:
        app.state.producer = producer
        yield
    # Left: all that was accepted is acknowledged, or an error says what is not.


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def ready() -> Response:
    return Response(status_code=204)


@app.post("/orders")
async def order(request: Request) -> Response:
    producer: aio.Producer = request.app.state.producer
    try:
        await producer.send(TOPIC, await request.body())
    except ottla.BufferFull:
        # The cluster takes less than comes in: whoever asks is to know, before memory runs out.
        return Response(status_code=503, headers={"Retry-After": "1"})
    return Response(status_code=202, headers={"X-Worker": str(os.getpid())})


def serve(bootstrap: str, port: int) -> None:
    os.environ["OTTLA_BOOTSTRAP"] = bootstrap
    uvicorn.run(
        "fastapi_service:app",
        app_dir=os.path.dirname(os.path.abspath(__file__)),
        port=port,
        workers=WORKERS,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=int(PATIENCE),
    )


class Customers:
    """Threads that order until nobody answers any more."""

    def __init__(self, port: int, threads: int = 8) -> None:
        self.port = port
        self.accepted: set[bytes] = set()
        self.workers: set[str | None] = set()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, customer: int) -> None:
        number = 0
        while True:
            # A new connection now and then: that may be another worker's.
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                for number in range(number, number + 25):
                    value = b"customer %d, order %d" % (customer, number)
                    connection.request("POST", "/orders", value)
                    response = connection.getresponse()
                    response.read()
                    if response.status == 202:
                        with self.lock:
                            self.accepted.add(value)
                            self.workers.add(response.headers["X-Worker"])
                number += 1
            except (OSError, http.client.HTTPException):
                # Not accepted; whether it is in the log nobody has promised.
                return
            finally:
                connection.close()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 204
    except OSError:
        return False
    finally:
        connection.close()


def embedded(orders: int) -> None:
    import ottla.testing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic(TOPIC, partitions=6)
        command = [sys.executable, __file__, "--bootstrap", broker.bootstrap, "--port", str(port)]
        with subprocess.Popen(command) as service:
            try:
                while not answers(port):
                    if service.poll() is not None:
                        raise SystemExit("the service did not start")
                    time.sleep(0.05)
                customers = Customers(port)
                while len(customers.accepted) < orders or len(customers.workers) < WORKERS:
                    if service.poll() is not None:
                        raise SystemExit("the service ended under load")
                    time.sleep(0.01)
                # As a service manager does, with every customer in the middle of an order.
                service.send_signal(signal.SIGTERM)
                for thread in customers.threads:
                    thread.join()
                service.wait(PATIENCE)
            finally:
                service.kill()
        with ottla.Consumer(broker.bootstrap, topics=[TOPIC]) as consumer:
            ends = ottla.Admin(broker.bootstrap).offsets([(TOPIC, partition) for partition in range(6)])
            stored = [record.value for record in consumer.records(until=ends)]
    lost = customers.accepted - {*stored}
    assert not lost, f"{len(lost)} of {len(customers.accepted)} accepted orders are lost"
    assert len(stored) == len({*stored}), "an order is there twice"
    print(f"{len(customers.workers)} workers accepted {len(customers.accepted):,} orders; all are in the log, none twice")


def main() -> None:
    parser = argparse.ArgumentParser(description="A web service that publishes on each request.")
    parser.add_argument("--bootstrap", help="host:port,... of a cluster (default: an embedded one, and load)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--orders", type=int, default=2_000, help="of the embedded run, before it is told to stop")
    arguments = parser.parse_args()
    if arguments.bootstrap:
        serve(arguments.bootstrap, arguments.port)
    else:
        embedded(arguments.orders)


if __name__ == "__main__":
    main()
