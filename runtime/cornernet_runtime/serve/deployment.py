"""The replicas: a deployment of Ray Serve, and the handle that asks them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any

from cornernet_runtime.backends.onnx_file import first_line
from cornernet_runtime.cluster.connect import LOCAL, import_ray, join
from cornernet_runtime.errors import ServeError
from cornernet_runtime.serve.replica import DetectorReplica

if TYPE_CHECKING:
    from collections.abc import Callable

    from cornernet_runtime.serve.messages import Answer, ModelInfo, Question
    from cornernet_runtime.serve.options import ServeRequest

DEPLOYMENT = "detector"
_ATTEMPTS = 3  # of a request whose replica died, the first included
_INFO_S = 60.0
_COUNT_S = 1.0  # for which a number of replicas is true enough


class OverloadedError(ServeError):
    """As many requests wait as may."""


class Replicas:
    """The replicas of one service, started and asked; ``start`` and ``stop`` block, ``ask`` does not.

    Args:
        request: What to start.
        on_retry: Called for each request that is sent again, because its replica died.

    Attributes:
        info: What the replicas opened, or None as long as it is not known.
    """

    def __init__(self, request: ServeRequest, on_retry: Callable[[], None] = lambda: None) -> None:
        self._request = request
        self._name = f"cornernet-serve-{secrets.token_hex(4)}"  # a process id is unique on one machine only
        self._handle: Any = None
        self.info: ModelInfo | None = None
        self._on_retry = on_retry
        self._counting, self._counted_s, self._count = asyncio.Lock(), -_COUNT_S, 0

    def connect(self) -> None:
        """Start Ray on this machine, or connect to the cluster that was asked for.

        Raises:
            ClusterError: Ray is not installed, or there is no cluster at the address.
            ServeError: The machine has fewer GPUs than were asked for.
        """
        address = self._request.cluster
        join(address or LOCAL, "serve", num_cpus=self._request.model.threads * self._request.replicas)
        ray = import_ray("serve")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # after the import, which sets it
        if address is None:
            there = ray.cluster_resources().get("GPU", 0)
            needed = self._request.gpus * self._request.replicas
            if needed > there:  # Serve would wait for them for ever
                raise ServeError(f"this machine has {there:g} GPUs that Ray sees, and the replicas need {needed:g}")

    def start(self) -> ModelInfo:
        """Start the replicas and return what they opened, once all are up.

        Raises:
            ServeError: They cannot be started, or cannot open the model.
        """
        from ray import serve  # noqa: PLC0415 - an extra
        from ray.exceptions import RayError  # noqa: PLC0415 - the same
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - the same

        request = self._request
        deployment = serve.deployment(
            name=DEPLOYMENT,
            num_replicas=request.replicas,
            # One batch is at work, and the next is decoded meanwhile.
            max_ongoing_requests=2 * request.model.batch,
            max_queued_requests=request.limits.waiting,
            health_check_period_s=1,  # of a replica that is gone it learns by this
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=request.drain_s,
            graceful_shutdown_wait_loop_s=0.1,
            ray_actor_options={
                "num_cpus": request.model.threads,
                "num_gpus": request.gpus,
                "runtime_env": {"env_vars": {"OPENCV_IO_MAX_IMAGE_PIXELS": str(request.limits.pixels)}},
            },
        )(DetectorReplica)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Serve, for those who write deployments
            try:
                serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
                self._handle = serve.run(deployment.bind(request.model), name=self._name, route_prefix=None)
            except (RuntimeError, TimeoutError, RayError, RayServeException) as error:
                raise ServeError(f"the replicas cannot be started: {first_line(error)}") from error
        try:
            info: ModelInfo = self._handle.info.remote().result(timeout_s=_INFO_S)
        except (TimeoutError, RayError, RayServeException) as error:
            raise ServeError(f"the replicas were started and do not answer: {first_line(error)}") from error
        if info.problem:
            raise ServeError(info.problem)
        self.info = info
        return info

    async def ask(self, question: Question) -> Answer:
        """Return the answer to a question; one whose replica died, or could not open its model, is put to another.

        Raises:
            OverloadedError: As many requests wait as may.
            ServeError: Replicas died under every attempt.
        """
        from ray.exceptions import RayActorError  # noqa: PLC0415 - an extra
        from ray.serve.exceptions import (  # noqa: PLC0415 - the same
            BackPressureError,
            DeploymentUnavailableError,
            ReplicaUnavailableError,
        )

        for attempt in range(_ATTEMPTS):
            try:
                answer: Answer = await self._handle.detect.remote(question)
            except BackPressureError as error:
                raise OverloadedError("too many requests wait; try again in a second") from error
            except DeploymentUnavailableError as error:
                raise ServeError("no replica can be started; the service's log says why") from error
            except (RayActorError, ReplicaUnavailableError):
                self._on_retry()
                continue
            if not answer.fault or attempt == _ATTEMPTS - 1:
                return answer
        raise ServeError(f"{_ATTEMPTS} replicas died over this request; try again, or look into their logs")

    async def running(self) -> int:
        """Return how many replicas are up, as it was a second ago at most: anybody may ask, and Ray has other work."""
        if self.info is None:
            return 0
        async with self._counting:  # for all who ask meanwhile
            if time.monotonic() - self._counted_s > _COUNT_S:
                self._count = await self._count_running()
                self._counted_s = time.monotonic()
        return self._count

    async def _count_running(self) -> int:
        from ray import serve  # noqa: PLC0415 - an extra
        from ray.exceptions import RayError  # noqa: PLC0415 - the same
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - the same

        try:
            status = await asyncio.to_thread(serve.status)
        except (RayError, RayServeException):  # its controller is gone, or being started again
            return 0
        application = status.applications.get(self._name)
        deployment = application.deployments.get(DEPLOYMENT) if application else None
        return (
            sum(count for state, count in deployment.replica_states.items() if state == "RUNNING") if deployment else 0
        )

    def stop(self) -> None:
        """End the replicas, and Ray too where it was started here."""
        import ray  # noqa: PLC0415 - an extra
        from ray import serve  # noqa: PLC0415 - an extra

        if not ray.is_initialized():
            return
        try:
            if self._request.cluster is not None:
                serve.delete(self._name)
        finally:
            ray.shutdown()  # ends all that was started here, with no request under way any more
