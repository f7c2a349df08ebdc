# SPDX-License-Identifier: Apache-2.0
"""The client for threads; tools/unasync.py writes it from async_client.py."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Any, Callable, Optional, Union

import grpc
from clipper_proto.v1 import application_service_pb2 as application_pb2
from clipper_proto.v1 import application_service_pb2_grpc as application_grpc
from clipper_proto.v1 import feedback_service_pb2 as feedback_pb2
from clipper_proto.v1 import feedback_service_pb2_grpc as feedback_grpc
from clipper_proto.v1 import model_service_pb2 as model_pb2
from clipper_proto.v1 import model_service_pb2_grpc as model_grpc
from clipper_proto.v1 import query_service_pb2 as query_pb2
from clipper_proto.v1 import query_service_pb2_grpc as query_grpc

from clipper import closure, messages
from clipper.connection import ADDRESS, ADMIN_ADDRESS, STREAM_ENDS, Settings, delay_before_repeating, each_sync, open_sync, seconds_of
from clipper.errors import ClipperError, from_rpc
from clipper.messages import Answer, Feedback, Query

POLL_SECONDS = 0.1


class Client:
    """A connection to Clipper; use it as a context manager, or close it.

    address is where queries and feedback go, admin_address where administration does: host:port or
    unix:/path. It is connected to at the first call.

    ca_file has the certificates (PEM) of the authorities that may have signed the server's, and turns
    TLS on; cert_file and key_file are the client's, for mutual TLS. api_key is an API key or a JWT;
    without TLS it is sent on this machine only.

    timeout bounds a call in seconds; a query with a timeout of its own is given one second more than
    that instead. Streams are not bounded. attempts is how often a call that is safe to repeat is made
    at most when Clipper cannot be reached: queries, reads, and feedback with a feedback_id or an id.

    interceptors are those of grpc, for traces and the like; they see each attempt. channel_options are
    added to the channel's. Repetitions and failures are logged by the logger ``clipper``.

    The calls raise ClipperError. Of the API, what has no method here is called with ``call`` on one of
    the stubs queries, feedbacks, applications and models.

    Any thread may use it.
    """

    def __init__(
        self,
        address: str = ADDRESS,
        admin_address: str = ADMIN_ADDRESS,
        *,
        ca_file: Optional[str] = None,
        cert_file: Optional[str] = None,
        key_file: Optional[str] = None,
        api_key: Optional[str] = None,
        timeout: float = 30.0,
        attempts: int = 4,
        interceptors: Sequence[Any] = (),
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._settings = Settings(ca_file, cert_file, key_file, api_key, timeout, attempts, interceptors, channel_options)
        self._settings.check(address, admin_address)
        self._channels = [open_sync(self._settings, address), open_sync(self._settings, admin_address)]
        self.queries: Any = query_grpc.QueryServiceStub(self._channels[0])
        self.feedbacks: Any = feedback_grpc.FeedbackServiceStub(self._channels[0])
        self.applications: Any = application_grpc.ApplicationServiceStub(self._channels[1])
        self.models: Any = model_grpc.ModelServiceStub(self._channels[1])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections; calls under way fail."""
        for channel in self._channels:
            channel.close()

    def call(self, stub: Any, name: str, request: Any, *, timeout: Optional[float] = None) -> Any:
        """Returns the answer to a call of one of the stubs, by the name that it has in the protos.

        timeout is in seconds, and that of the client when it is None.
        """
        limit = time.monotonic() + (seconds_of(request, self._settings.timeout) if timeout is None else timeout)
        attempt = 1
        while True:
            try:
                return getattr(stub, name)(request, timeout=max(limit - time.monotonic(), 0), metadata=self._settings.metadata)
            except grpc.RpcError as e:
                left = limit - time.monotonic()
                error = from_rpc(e, left)
                pause = delay_before_repeating(error, attempt, self._settings.attempts, name, request, left)
                if pause is None:
                    raise error from e
            time.sleep(pause)
            attempt += 1

    # Queries and feedback.

    def query(
        self,
        application: str,
        input: Any,
        *,
        context: str = "",
        id: str = "",
        priority: int = 0,
        timeout: Optional[float] = None,
    ) -> Answer:
        """Asks an application, and returns its answer.

        input is an array of numpy, sent as it is: its type and shape must be those of the application.
        Or it is plain Python, a number, a text, bytes, or lists of them, which Clipper reads as the
        application's signature says. Several inputs are a dict of either by their names.

        context is the user, session or device whose state is used; id is returned as it is. priority is
        1, refused last in overload, to 8, refused first. timeout is the time in seconds within which
        the answer is wanted: then the answer is the application's default.
        """
        request = messages.query_request(application, Query(input, context=context, id=id, priority=priority, timeout=timeout))
        return messages.to_answer(self.call(self.queries, "Query", request))

    def query_batch(self, application: str, queries: Iterable[Any], *, timeout: Optional[float] = None) -> list[Union[Answer, ClipperError]]:
        """Asks many queries, of 1 to 10,000, each an input or a Query, and returns an answer or an error for each."""
        items = [messages.batch_query(q if isinstance(q, Query) else Query(q)) for q in queries]
        request = query_pb2.QueryBatchRequest(application=application, queries=items)
        if timeout is not None:
            request.timeout.CopyFrom(messages.to_duration(timeout))
        return [messages.to_result(r) for r in (self.call(self.queries, "QueryBatch", request)).results]

    def query_stream(
        self, queries: Iterable[Query], *, application: str = ""
    ) -> Iterator[tuple[Query, Union[Answer, ClipperError]]]:
        """Asks as queries come, over one stream, and yields each with its answer or error as it is ready.

        application is for queries that do not say theirs. When the stream itself breaks, ClipperError is
        raised; an error of the queries' iterator is raised as it is.
        """
        asked: dict[int, Query] = {}
        failed: list[Exception] = []
        sequences = itertools.count(1)

        def requests() -> Iterator[query_pb2.QueryStreamRequest]:
            try:
                for q in each_sync(queries):
                    sequence = next(sequences)
                    asked[sequence] = q
                    yield query_pb2.QueryStreamRequest(sequence=sequence, query=messages.query_request(q.application or application, q))
            except Exception as e:
                failed.append(e)
                raise

        stream = self.queries.QueryStream(requests(), metadata=self._settings.metadata)
        try:
            for response in stream:
                yield asked.pop(response.sequence), messages.to_result(response.result)
        except STREAM_ENDS as e:
            if failed:
                raise failed[0] from None
            if isinstance(e, grpc.RpcError):
                raise from_rpc(e) from e
            raise
        finally:
            stream.cancel()

    def feedback(
        self,
        application: str,
        *,
        feedback_id: str = "",
        input: Any = None,
        truth: Any = None,
        reward: Optional[float] = None,
        context: str = "",
        id: str = "",
        timeout: Optional[float] = None,
    ) -> feedback_pb2.FeedbackResponse:
        """Tells an application how a query turned out. It is durable, and counts once, when this returns.

        feedback_id is that of the answer; or input is that of the query, in context, and id makes a
        repetition count once. truth is the true answer, or reward, from 0 to 1, how good the answer was.
        """
        request = messages.feedback_request(application, Feedback(feedback_id, input, truth, reward, context, id))
        response: feedback_pb2.FeedbackResponse = self.call(self.feedbacks, "Feedback", request, timeout=timeout)
        return response

    def feedback_batch(self, application: str, items: Iterable[Feedback]) -> list[Union[feedback_pb2.FeedbackResponse, ClipperError]]:
        """Gives feedback for many queries, and returns what was learned, or an error, for each."""
        request = feedback_pb2.FeedbackBatchRequest(application=application, items=[messages.feedback_request("", f) for f in items])
        return [messages.to_feedback_result(r) for r in (self.call(self.feedbacks, "FeedbackBatch", request)).results]

    # Administration of applications.

    def create_application(self, application: Union[application_pb2.Application, Mapping[str, Any]]) -> application_pb2.Application:
        """Registers an application, a message or a dict in its JSON form (docs/rest.md), and returns it as created."""
        message = messages.to_message(application, application_pb2.Application())
        request = application_pb2.CreateApplicationRequest(application=message)
        created: application_pb2.Application = (self.call(self.applications, "CreateApplication", request)).application
        return created

    def get_application(self, application: str) -> application_pb2.Application:
        """Returns an application."""
        request = application_pb2.GetApplicationRequest(application=application)
        found: application_pb2.Application = (self.call(self.applications, "GetApplication", request)).application
        return found

    def list_applications(self, *, page_size: int = 0) -> Iterator[application_pb2.Application]:
        """Yields all applications, sorted by name, page by page."""
        token = ""
        while True:
            request = application_pb2.ListApplicationsRequest(page_size=page_size, page_token=token)
            page = self.call(self.applications, "ListApplications", request)
            for application in page.applications:
                yield application
            token = page.next_page_token
            if not token:
                return

    def update_application(
        self,
        application: Union[application_pb2.Application, Mapping[str, Any]],
        *,
        update_mask: Sequence[str] = (),
        reset_state: bool = False,
    ) -> application_pb2.Application:
        """Changes the fields of an application that update_mask names; without one, all that are set.

        With an etag, only when nobody else has changed it. reset_state forgets what was learned.
        """
        message = messages.to_message(application, application_pb2.Application())
        request = application_pb2.UpdateApplicationRequest(application=message, reset_state=reset_state)
        request.update_mask.paths.extend(update_mask)
        changed: application_pb2.Application = (self.call(self.applications, "UpdateApplication", request)).application
        return changed

    def delete_application(self, application: str, *, etag: str = "") -> None:
        """Removes an application and everything that it learned."""
        self.call(self.applications, "DeleteApplication", application_pb2.DeleteApplicationRequest(application=application, etag=etag))

    def get_selection_state(self, application: str, *, context: str = "") -> application_pb2.GetSelectionStateResponse:
        """Returns what an application has learned."""
        request = application_pb2.GetSelectionStateRequest(application=application, context=context)
        state: application_pb2.GetSelectionStateResponse = self.call(self.applications, "GetSelectionState", request)
        return state

    def reset_selection_state(self, application: str, *, context: str = "") -> None:
        """Forgets what an application, or one context, has learned."""
        request = application_pb2.ResetSelectionStateRequest(application=application, context=context)
        self.call(self.applications, "ResetSelectionState", request)

    # Administration of models.

    def deploy_model(
        self,
        version: Union[model_pb2.ModelVersion, Mapping[str, Any]],
        *,
        keep_current: bool = False,
        keep_versions: Optional[int] = None,
    ) -> model_pb2.ModelVersion:
        """Records a version, a message or a dict in its JSON form (docs/rest.md), and starts its replicas.

        It does not wait until they are ready: see wait_model_ready.
        """
        message = messages.to_message(version, model_pb2.ModelVersion())
        request = model_pb2.DeployModelRequest(version=message, keep_current=keep_current, keep_versions=keep_versions)
        deployed: model_pb2.ModelVersion = (self.call(self.models, "DeployModel", request)).version
        return deployed

    def deploy(
        self,
        function: Callable[[Any], Any],
        *,
        name: str,
        version: str,
        directory: Union[str, os.PathLike[str], None] = None,
        modules: Sequence[ModuleType] = (),
        replicas: int = 1,
        environment: Optional[Mapping[str, str]] = None,
        keep_current: bool = False,
        keep_versions: Optional[int] = None,
        ready_seconds: float = 120.0,
    ) -> model_pb2.ModelVersion:
        """Deploys a function of a batch as a version of a model, waits until it can be queried, and
        returns the version.

        The function is saved (see ``save``, also for modules) to a new file in directory, and Clipper's
        process launcher runs it with the adapter ``closure``. So the directory must have the same path
        on the machine that runs the replicas; the default suits a Clipper on this one:
        $CLIPPER_CLOSURE_DIR, or clipper/closures in the user's folder for data.

        replicas is the number of processes, environment further variables of theirs. With keep_current,
        the model's current version stays as it is. keep_versions is how many versions the model keeps
        from now on that are older than the current one; None leaves that as it is. ready_seconds is how
        long to wait.

        Raises ValueError for a bad name or version, TypeError when the function cannot be pickled, and
        ClipperError when Clipper refuses the version or no replica can serve; its message says why. A
        version that cannot serve stays deployed until it is deleted.
        """
        path = closure.save_new(function, name, version, directory, modules)
        wanted = model_pb2.ModelVersion(model=name, version=version, replicas=replicas)
        wanted.container.adapter.framework = "closure"
        wanted.container.adapter.model_path = str(path)
        wanted.container.environment.update(environment or {})
        try:
            self.deploy_model(wanted, keep_current=keep_current, keep_versions=keep_versions)
        except ClipperError as e:
            # When the answer was lost, the version may have been deployed.
            if e.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
                path.unlink()
            raise
        return self.wait_model_ready(name, version, timeout=ready_seconds)

    def wait_model_ready(self, model: str, version: str, *, timeout: float = 120.0) -> model_pb2.ModelVersion:
        """Waits, at most timeout seconds, until every replica that a version wants can be queried.

        Raises ClipperError when it cannot serve or is not ready in time; its message says why.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = self.get_model_version(model, version)
            if found.state in (model_pb2.MODEL_STATE_READY, model_pb2.MODEL_STATE_STOPPED):
                return found
            if found.state == model_pb2.MODEL_STATE_FAILED:
                raise ClipperError(f"{model} {version} cannot serve: {found.state_message}")
            if time.monotonic() > deadline:
                raise ClipperError(f"{model} {version} is not ready after {timeout:g} s: {found.state_message}")
            time.sleep(POLL_SECONDS)

    def get_model(self, model: str) -> model_pb2.Model:
        """Returns a model with its versions."""
        found: model_pb2.Model = (self.call(self.models, "GetModel", model_pb2.GetModelRequest(model=model))).model
        return found

    def list_models(self, *, page_size: int = 0) -> Iterator[model_pb2.Model]:
        """Yields all models, sorted by name, page by page."""
        token = ""
        while True:
            page = self.call(self.models, "ListModels", model_pb2.ListModelsRequest(page_size=page_size, page_token=token))
            for model in page.models:
                yield model
            token = page.next_page_token
            if not token:
                return

    def get_model_version(self, model: str, version: str) -> model_pb2.ModelVersion:
        """Returns a version with its replicas and its state."""
        request = model_pb2.GetModelVersionRequest(model=model, version=version)
        found: model_pb2.ModelVersion = (self.call(self.models, "GetModelVersion", request)).version
        return found

    def scale_model(self, model: str, version: str, replicas: int) -> model_pb2.ModelVersion:
        """Changes the number of replicas of a version."""
        request = model_pb2.UpdateModelVersionRequest(model=model, version=version, replicas=replicas)
        changed: model_pb2.ModelVersion = (self.call(self.models, "UpdateModelVersion", request)).version
        return changed

    def set_current_version(self, model: str, version: str) -> model_pb2.Model:
        """Makes a version the current one, at once; so it also rolls back."""
        request = model_pb2.SetCurrentVersionRequest(model=model, version=version)
        changed: model_pb2.Model = (self.call(self.models, "SetCurrentVersion", request)).model
        return changed

    def delete_model_version(self, model: str, version: str) -> None:
        """Drains and stops a version's replicas, and removes it."""
        self.call(self.models, "DeleteModelVersion", model_pb2.DeleteModelVersionRequest(model=model, version=version))

    def delete_model(self, model: str) -> None:
        """Does so for every version of a model."""
        self.call(self.models, "DeleteModel", model_pb2.DeleteModelRequest(model=model))
