"""What the process that takes requests counts, in the text format of Prometheus.

Replicas say of each batch how large it was and how long it took, with the answer to its first picture; so one registry
has all of it, and no replica needs a port of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cornernet_runtime.serve.messages import Answer

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The registry of one service.

    Attributes:
        content_type: Of ``text``.
    """

    def __init__(self) -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - an extra

        self._registry = prometheus.CollectorRegistry()
        self._text = prometheus.generate_latest
        self.content_type = prometheus.CONTENT_TYPE_LATEST
        own: dict[str, Any] = {"registry": self._registry}
        self._requests = prometheus.Counter(
            "cornernet_requests", "Responses, by path and status", ["path", "status"], **own
        )
        self._latency = prometheus.Histogram(
            "cornernet_request_seconds", "From a request's head to its response", ["path"], buckets=_SECONDS, **own
        )
        self._batch = prometheus.Histogram(
            "cornernet_batch_size", "Pictures detected in together", buckets=(1, 2, 4, 8, 16, 32, 64), **own
        )
        self._decode = prometheus.Histogram(
            "cornernet_decode_seconds", "Decoding a picture, waiting included", buckets=_SECONDS, **own
        )
        self._detect = prometheus.Histogram("cornernet_detect_seconds", "Detecting in a batch", buckets=_SECONDS, **own)
        self._retries = prometheus.Counter("cornernet_retries", "Requests sent again, for their replica died", **own)
        self._under_way = prometheus.Gauge("cornernet_requests_under_way", "Requests without their response", **own)
        prometheus.ProcessCollector(registry=self._registry)

    def begin(self) -> None:
        """Count a request that is under way from now on."""
        self._under_way.inc()

    def end(self, path: str, status: int, seconds: float) -> None:
        """Count its response, or its end without one, of status 499."""
        self._under_way.dec()
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def count_retry(self) -> None:
        """Count a request that is sent again."""
        self._retries.inc()

    def count_answer(self, answer: Answer) -> None:
        """Count what a replica did."""
        if answer.content is not None:
            self._decode.observe(answer.decode_s)
        if answer.first:
            self._batch.observe(answer.batch)
            self._detect.observe(answer.detect_s)

    def text(self) -> bytes:
        """Return all of it."""
        return bytes(self._text(self._registry))
