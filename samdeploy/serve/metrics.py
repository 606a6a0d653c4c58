"""What the server counts of itself, as Prometheus reads it at /metrics."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from samdeploy.serve.batcher import Ran
from samdeploy.serve.workers import METRICS_FOLDER

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """The counters of one process, and of one model with `of`."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began: as many lines again, which nobody asks for
        registry = self._registry = CollectorRegistry()
        model = ("model", "version")
        self.requests = Counter(
            "samdeploy_requests", "Answered requests.", (*model, "endpoint", "code"), registry=registry
        )
        self.queue_seconds = Histogram(
            "samdeploy_queue_seconds",
            "From the queue to the engine, by request.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "samdeploy_decode_seconds", "Decoding and resizing, by request.", model, buckets=_SECONDS, registry=registry
        )
        self.engine_seconds = Histogram(
            "samdeploy_engine_seconds", "One call of the engine.", model, buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "samdeploy_batch_size", "Images in one call of the engine.", model, buckets=_SIZES, registry=registry
        )
        self.queue_length = Gauge(
            "samdeploy_queue_length",
            "Images that wait.",
            model,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.labels = Counter(
            "samdeploy_answers", "Images by the class that was named.", (*model, "label"), registry=registry
        )
        self.probability = Histogram(
            "samdeploy_probability",
            "Probability of the class that was named.",
            model,
            buckets=_TENTHS,
            registry=registry,
        )
        self.rejected = Counter("samdeploy_rejected", "Answers below the bundle's threshold.", model, registry=registry)
        self.golden = Gauge(
            "samdeploy_golden_difference",
            "Largest difference from the golden logits at the last self-test, as a share of their range; +Inf: failed.",
            model,
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.ready = Gauge(
            "samdeploy_ready",
            "1 where the last self-test passed.",
            model,
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.drift = Gauge(
            "samdeploy_drift",
            "Population stability index of the newest answers against those to validation.",
            (*model, "of"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.drift_above_chance = Gauge(
            "samdeploy_drift_above_chance",
            "The index less what it stays below in 95 of 100 cases where nothing has changed.",
            (*model, "of"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def text(self) -> bytes:
        """What /metrics answers."""
        registry = self._registry
        if os.environ.get(METRICS_FOLDER):  # of all workers
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def ran(self, name: str, version: str, ran: Ran) -> None:
        """Take in one call of an engine."""
        self.queue_length.labels(name, version).set(ran.waiting)
        self.engine_seconds.labels(name, version).observe(ran.seconds)
        self.batch_size.labels(name, version).observe(ran.images)
        queue = self.queue_seconds.labels(name, version)
        for seconds in ran.waited:
            queue.observe(seconds)
