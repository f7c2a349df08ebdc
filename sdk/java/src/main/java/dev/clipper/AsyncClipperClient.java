// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import com.google.protobuf.Message;
import dev.clipper.v1.Application;
import dev.clipper.v1.ApplicationServiceGrpc;
import dev.clipper.v1.Container;
import dev.clipper.v1.CreateApplicationRequest;
import dev.clipper.v1.CreateApplicationResponse;
import dev.clipper.v1.DeleteApplicationRequest;
import dev.clipper.v1.DeleteModelRequest;
import dev.clipper.v1.DeleteModelVersionRequest;
import dev.clipper.v1.DeployModelRequest;
import dev.clipper.v1.DeployModelResponse;
import dev.clipper.v1.FeedbackBatchRequest;
import dev.clipper.v1.FeedbackRequest;
import dev.clipper.v1.FeedbackResponse;
import dev.clipper.v1.FeedbackServiceGrpc;
import dev.clipper.v1.GetApplicationRequest;
import dev.clipper.v1.GetApplicationResponse;
import dev.clipper.v1.GetModelRequest;
import dev.clipper.v1.GetModelResponse;
import dev.clipper.v1.GetModelVersionRequest;
import dev.clipper.v1.GetModelVersionResponse;
import dev.clipper.v1.ListApplicationsRequest;
import dev.clipper.v1.ListModelsRequest;
import dev.clipper.v1.Model;
import dev.clipper.v1.ModelServiceGrpc;
import dev.clipper.v1.ModelState;
import dev.clipper.v1.ModelVersion;
import dev.clipper.v1.QueryBatchRequest;
import dev.clipper.v1.QueryRequest;
import dev.clipper.v1.QueryResponse;
import dev.clipper.v1.QueryServiceGrpc;
import dev.clipper.v1.SetCurrentVersionRequest;
import dev.clipper.v1.SetCurrentVersionResponse;
import dev.clipper.v1.Tensor;
import dev.clipper.v1.UpdateApplicationRequest;
import dev.clipper.v1.UpdateApplicationResponse;
import dev.clipper.v1.UpdateModelVersionRequest;
import dev.clipper.v1.UpdateModelVersionResponse;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * The client of Clipper that returns futures. They end with a {@link ClipperException} (behind a
 * {@link java.util.concurrent.CompletionException} where futures are composed); cancelling one cancels the call,
 * or makes no further one where there are several. What follows a future runs on a thread of gRPC unless it is told where. Any thread may
 * use a client; make one and keep it. {@link ClipperClient#builder()} makes it.
 */
public final class AsyncClipperClient implements AutoCloseable {
    private static final Set<String> QUERIES = Set.of(QueryServiceGrpc.SERVICE_NAME, FeedbackServiceGrpc.SERVICE_NAME);
    /** How often a version is looked at until it is ready. */
    private static final long READY_POLL_MS = 100;

    private final Caller caller;
    private final List<ManagedChannel> connections;
    private final Channel queries;
    private final Channel admin;

    AsyncClipperClient(Caller caller, List<ManagedChannel> connections, Channel queries, Channel admin) {
        this.caller = caller;
        this.connections = connections;
        this.queries = queries;
        this.admin = admin;
    }

    /** Returns a client with the same connections, whose calls, and streams that the server sends, end after this time; it need not be closed. */
    public AsyncClipperClient withTimeout(Duration timeout) {
        return new AsyncClipperClient(caller.withTimeout(timeout), connections, queries, admin);
    }

    /** Asks. */
    public CompletableFuture<QueryResponse> query(QueryRequest request) {
        return call(QueryServiceGrpc.getQueryMethod(), request);
    }

    /** Asks with tensors: one, or several named ones. */
    public CompletableFuture<QueryResponse> query(String application, Tensor... inputs) {
        return query(QueryRequest.newBuilder().setApplication(application).addAllInputs(List.of(inputs)).build());
    }

    /** Asks up to 10,000 queries at once; each has its own answer or error, in the same order. */
    public CompletableFuture<List<Result<QueryResponse>>> queryBatch(QueryBatchRequest request) {
        return unary(QueryServiceGrpc.getQueryBatchMethod(), request, r -> r.getResultsList().stream()
            .map(i -> i.hasError() ? new Result<QueryResponse>(null, ClipperException.of(i.getError())) : new Result<>(i.getResponse(), null)).toList());
    }

    /** Says how a query turned out. */
    public CompletableFuture<FeedbackResponse> feedback(FeedbackRequest request) {
        return call(FeedbackServiceGrpc.getFeedbackMethod(), request);
    }

    /** Tells the true answer: a label, a number, or for scores the class or a list; see {@link Json#value}. */
    public CompletableFuture<FeedbackResponse> feedback(String application, String feedbackId, Object truth) {
        return feedback(FeedbackRequest.newBuilder().setApplication(application).setFeedbackId(feedbackId).setTruth(Json.value(truth)).build());
    }

    /** Gives feedback for up to 10,000 queries; each item has its own result, in the same order. */
    public CompletableFuture<List<Result<FeedbackResponse>>> feedbackBatch(FeedbackBatchRequest request) {
        return unary(FeedbackServiceGrpc.getFeedbackBatchMethod(), request, r -> r.getResultsList().stream()
            .map(i -> i.hasError() ? new Result<FeedbackResponse>(null, ClipperException.of(i.getError())) : new Result<>(i.getResponse(), null)).toList());
    }

    /** Creates an application, and returns it with what the server has set. */
    public CompletableFuture<Application> createApplication(Application application) {
        return unary(ApplicationServiceGrpc.getCreateApplicationMethod(), CreateApplicationRequest.newBuilder().setApplication(application).build(), CreateApplicationResponse::getApplication);
    }

    /** Returns an application. */
    public CompletableFuture<Application> getApplication(String application) {
        return unary(ApplicationServiceGrpc.getGetApplicationMethod(), GetApplicationRequest.newBuilder().setApplication(application).build(), GetApplicationResponse::getApplication);
    }

    /** Returns all applications, sorted by name, read page by page. */
    public CompletableFuture<List<Application>> listApplications(int pageSize) {
        return pages(token -> unary(ApplicationServiceGrpc.getListApplicationsMethod(), ListApplicationsRequest.newBuilder().setPageSize(pageSize).setPageToken(token).build(),
            r -> new Page<>(r.getApplicationsList(), r.getNextPageToken())));
    }

    /** Changes the fields of an application that the request's mask names. */
    public CompletableFuture<Application> updateApplication(UpdateApplicationRequest request) {
        return unary(ApplicationServiceGrpc.getUpdateApplicationMethod(), request, UpdateApplicationResponse::getApplication);
    }

    /** Deletes an application. */
    public CompletableFuture<Void> deleteApplication(String application) {
        return unary(ApplicationServiceGrpc.getDeleteApplicationMethod(), DeleteApplicationRequest.newBuilder().setApplication(application).build(), r -> null);
    }

    /** Deploys a version of a model. It may not be ready yet. */
    public CompletableFuture<ModelVersion> deployModel(DeployModelRequest request) {
        return unary(ModelServiceGrpc.getDeployModelMethod(), request, DeployModelResponse::getVersion);
    }

    /** Returns a model with its versions. */
    public CompletableFuture<Model> getModel(String model) {
        return unary(ModelServiceGrpc.getGetModelMethod(), GetModelRequest.newBuilder().setModel(model).build(), GetModelResponse::getModel);
    }

    /** Returns all models, sorted by name, read page by page. */
    public CompletableFuture<List<Model>> listModels(int pageSize) {
        return pages(token -> unary(ModelServiceGrpc.getListModelsMethod(), ListModelsRequest.newBuilder().setPageSize(pageSize).setPageToken(token).build(),
            r -> new Page<>(r.getModelsList(), r.getNextPageToken())));
    }

    /** Returns a version of a model. */
    public CompletableFuture<ModelVersion> getModelVersion(String model, String version) {
        return unary(ModelServiceGrpc.getGetModelVersionMethod(), GetModelVersionRequest.newBuilder().setModel(model).setVersion(version).build(), GetModelVersionResponse::getVersion);
    }

    /** Sets the number of replicas of a version. */
    public CompletableFuture<ModelVersion> scaleModelVersion(String model, String version, int replicas) {
        return unary(ModelServiceGrpc.getUpdateModelVersionMethod(), UpdateModelVersionRequest.newBuilder().setModel(model).setVersion(version).setReplicas(replicas).build(),
            UpdateModelVersionResponse::getVersion);
    }

    /** Makes a version the one that applications ask. */
    public CompletableFuture<Model> setCurrentVersion(String model, String version) {
        return unary(ModelServiceGrpc.getSetCurrentVersionMethod(), SetCurrentVersionRequest.newBuilder().setModel(model).setVersion(version).build(), SetCurrentVersionResponse::getModel);
    }

    /** Undeploys a version. */
    public CompletableFuture<Void> deleteModelVersion(String model, String version) {
        return unary(ModelServiceGrpc.getDeleteModelVersionMethod(), DeleteModelVersionRequest.newBuilder().setModel(model).setVersion(version).build(), r -> null);
    }

    /** Undeploys a model with all its versions. */
    public CompletableFuture<Void> deleteModel(String model) {
        return unary(ModelServiceGrpc.getDeleteModelMethod(), DeleteModelRequest.newBuilder().setModel(model).build(), r -> null);
    }

    /** Opens a stream of queries. */
    public QueryStream stream() {
        return new QueryStream(queries);
    }

    /**
     * Makes any call of the API: {@code call(ApplicationServiceGrpc.getGetCanaryMethod(), request)}.
     *
     * @throws IllegalArgumentException the method is a stream
     */
    public <Q extends Message, R extends Message> CompletableFuture<R> call(MethodDescriptor<Q, R> method, Q request) {
        return unary(method, request, r -> r);
    }

    /**
     * Makes a call that answers with a stream, and gives each message to a function, one after the other:
     * {@code receive(ModelServiceGrpc.getReadLogsMethod(), request, System.out::println)}. The future ends with the stream; what the
     * function throws ends both. There is no deadline but that of {@link #withTimeout}.
     *
     * @throws IllegalArgumentException the method is no such call
     */
    public <Q extends Message, R extends Message> CompletableFuture<Void> receive(MethodDescriptor<Q, R> method, Q request, Consumer<? super R> each) {
        check(method, MethodDescriptor.MethodType.SERVER_STREAMING);
        return caller.receive(channel(method), method, request, each);
    }

    /** Ends the connections; calls under way fail. */
    @Override
    public void close() {
        connections.forEach(ManagedChannel::shutdownNow);
    }

    /** As {@link #deploy(DeployModelRequest, Duration)}, with nothing but where the model is; see {@link Containers}. */
    public CompletableFuture<ModelVersion> deploy(String model, String version, Container container, Duration within) {
        return deploy(DeployModelRequest.newBuilder()
            .setVersion(ModelVersion.newBuilder().setModel(model).setVersion(version).setContainer(container)).build(), within);
    }

    /** Deploys a version of a model and waits until it can be queried, as {@link #waitModelReady} does. */
    public CompletableFuture<ModelVersion> deploy(DeployModelRequest request, Duration within) {
        var ready = new CompletableFuture<ModelVersion>();
        deployModel(request).whenComplete((v, error) -> {
            if (error != null) {
                ready.completeExceptionally(error);
            } else {
                look(ready, v.getModel(), v.getVersion(), within, System.nanoTime());
            }
        });
        return ready;
    }

    /**
     * Waits until every replica that a version wants can be queried. A version that cannot serve is a FAILED_PRECONDITION that says why;
     * one that is not ready in time is a DEADLINE.
     */
    public CompletableFuture<ModelVersion> waitModelReady(String model, String version, Duration within) {
        var ready = new CompletableFuture<ModelVersion>();
        look(ready, model, version, within, System.nanoTime());
        return ready;
    }

    private void look(CompletableFuture<ModelVersion> ready, String model, String version, Duration within, long since) {
        if (ready.isDone()) {
            return;
        }
        getModelVersion(model, version).whenComplete((v, error) -> {
            String name = model + " " + version;
            if (error != null) {
                ready.completeExceptionally(error);
            } else if (v.getState() == ModelState.MODEL_STATE_READY || v.getState() == ModelState.MODEL_STATE_STOPPED) {
                ready.complete(v);
            } else if (v.getState() == ModelState.MODEL_STATE_FAILED) {
                ready.completeExceptionally(ClipperException.of(Status.Code.FAILED_PRECONDITION, name + " cannot serve: " + v.getStateMessage()));
            } else if (Duration.ofNanos(System.nanoTime() - since).compareTo(within) >= 0) {
                ready.completeExceptionally(ClipperException.of(Status.Code.DEADLINE_EXCEEDED, name + " is not ready: " + v.getStateMessage()));
            } else {
                CompletableFuture.delayedExecutor(READY_POLL_MS, TimeUnit.MILLISECONDS).execute(() -> look(ready, model, version, within, since));
            }
        });
    }

    private record Page<T>(List<T> items, String next) {}

    private static <T> CompletableFuture<List<T>> pages(Function<String, CompletableFuture<Page<T>>> read) {
        var all = new CompletableFuture<List<T>>();
        page(all, new ArrayList<>(), "", read);
        return all;
    }

    private static <T> void page(CompletableFuture<List<T>> all, List<T> items, String token, Function<String, CompletableFuture<Page<T>>> read) {
        if (all.isDone()) {
            return;
        }
        read.apply(token).whenComplete((p, error) -> {
            if (error != null) {
                all.completeExceptionally(error);
                return;
            }
            items.addAll(p.items());
            if (p.next().isEmpty()) {
                all.complete(items);
            } else {
                page(all, items, p.next(), read);
            }
        });
    }

    private <Q extends Message, R extends Message, T> CompletableFuture<T> unary(MethodDescriptor<Q, R> method, Q request, Function<? super R, ? extends T> read) {
        check(method, MethodDescriptor.MethodType.UNARY);
        return caller.unary(channel(method), method, request, read);
    }

    private static void check(MethodDescriptor<?, ?> method, MethodDescriptor.MethodType wanted) {
        if (method.getType() != wanted) {
            throw new IllegalArgumentException(method.getFullMethodName() + " is " + method.getType() + ", not " + wanted);
        }
    }

    private Channel channel(MethodDescriptor<?, ?> method) {
        return QUERIES.contains(method.getServiceName()) ? queries : admin;
    }
}
