// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import com.google.protobuf.Message;
import dev.clipper.v1.Application;
import dev.clipper.v1.ApplicationServiceGrpc;
import dev.clipper.v1.Container;
import dev.clipper.v1.DeployModelRequest;
import dev.clipper.v1.FeedbackBatchRequest;
import dev.clipper.v1.FeedbackRequest;
import dev.clipper.v1.FeedbackResponse;
import dev.clipper.v1.Model;
import dev.clipper.v1.ModelServiceGrpc;
import dev.clipper.v1.ModelVersion;
import dev.clipper.v1.QueryBatchRequest;
import dev.clipper.v1.QueryRequest;
import dev.clipper.v1.QueryResponse;
import dev.clipper.v1.Tensor;
import dev.clipper.v1.UpdateApplicationRequest;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.List;
import java.util.function.Consumer;

/**
 * The client of Clipper that waits for its answers. Calls throw {@link ClipperException}; a thread that is interrupted while it waits ends
 * its call with one, and stays interrupted. Any thread may use a client; make one and keep it.
 *
 * <pre>{@code
 * try (ClipperClient client = ClipperClient.builder().build()) {
 *     QueryResponse answer = client.query("digits", Tensors.of(new double[] {0.1, 0.2}));
 *     long label = Tensors.longValue(answer.getOutputs(0));
 * }
 * }</pre>
 */
public final class ClipperClient implements AutoCloseable {
    /** The version of this package, as the user agent has it. */
    public static final String VERSION = "0.1.0";

    private final AsyncClipperClient async;

    ClipperClient(AsyncClipperClient async) {
        this.async = async;
    }

    /** Returns what a client is made with; without more it is for a Clipper on this machine. */
    public static ClientBuilder builder() {
        return new ClientBuilder();
    }

    /** Returns the client of the same connections that does not wait; it need not be closed. */
    public AsyncClipperClient async() {
        return async;
    }

    /** Returns a client with the same connections, whose calls, and streams that the server sends, end after this time; it need not be closed. */
    public ClipperClient withTimeout(Duration timeout) {
        return new ClipperClient(async.withTimeout(timeout));
    }

    /** Asks. */
    public QueryResponse query(QueryRequest request) {
        return Caller.await(async.query(request));
    }

    /** Asks with tensors: one, or several named ones. */
    public QueryResponse query(String application, Tensor... inputs) {
        return Caller.await(async.query(application, inputs));
    }

    /** Asks up to 10,000 queries at once; each has its own answer or error, in the same order. */
    public List<Result<QueryResponse>> queryBatch(QueryBatchRequest request) {
        return Caller.await(async.queryBatch(request));
    }

    /** Says how a query turned out. */
    public FeedbackResponse feedback(FeedbackRequest request) {
        return Caller.await(async.feedback(request));
    }

    /** Tells the true answer: a label, a number, or for scores the class or a list; see {@link Json#value}. */
    public FeedbackResponse feedback(String application, String feedbackId, Object truth) {
        return Caller.await(async.feedback(application, feedbackId, truth));
    }

    /** Gives feedback for up to 10,000 queries; each item has its own result, in the same order. */
    public List<Result<FeedbackResponse>> feedbackBatch(FeedbackBatchRequest request) {
        return Caller.await(async.feedbackBatch(request));
    }

    /** Creates an application, and returns it with what the server has set. */
    public Application createApplication(Application application) {
        return Caller.await(async.createApplication(application));
    }

    /** Returns an application. */
    public Application getApplication(String application) {
        return Caller.await(async.getApplication(application));
    }

    /** Returns all applications, sorted by name, read page by page. */
    public List<Application> listApplications(int pageSize) {
        return Caller.await(async.listApplications(pageSize));
    }

    /** Changes the fields of an application that the request's mask names. */
    public Application updateApplication(UpdateApplicationRequest request) {
        return Caller.await(async.updateApplication(request));
    }

    /** Deletes an application. */
    public void deleteApplication(String application) {
        Caller.await(async.deleteApplication(application));
    }

    /** Deploys a version of a model. It may not be ready yet. */
    public ModelVersion deployModel(DeployModelRequest request) {
        return Caller.await(async.deployModel(request));
    }

    /** Deploys a version of a model, see {@link Containers}, and waits until it can be queried as {@link #waitModelReady} does. */
    public ModelVersion deploy(String model, String version, Container container, Duration within) {
        return Caller.await(async.deploy(model, version, container, within));
    }

    /** Deploys a version of a model, and waits until it can be queried as {@link #waitModelReady} does. */
    public ModelVersion deploy(DeployModelRequest request, Duration within) {
        return Caller.await(async.deploy(request, within));
    }

    /**
     * Waits until every replica that a version wants can be queried. A version that cannot serve is an error that says why; one that is not
     * ready in time is a DEADLINE.
     */
    public ModelVersion waitModelReady(String model, String version, Duration within) {
        return Caller.await(async.waitModelReady(model, version, within));
    }

    /** Returns a model with its versions. */
    public Model getModel(String model) {
        return Caller.await(async.getModel(model));
    }

    /** Returns all models, sorted by name, read page by page. */
    public List<Model> listModels(int pageSize) {
        return Caller.await(async.listModels(pageSize));
    }

    /** Returns a version of a model. */
    public ModelVersion getModelVersion(String model, String version) {
        return Caller.await(async.getModelVersion(model, version));
    }

    /** Sets the number of replicas of a version. */
    public ModelVersion scaleModelVersion(String model, String version, int replicas) {
        return Caller.await(async.scaleModelVersion(model, version, replicas));
    }

    /** Makes a version the one that applications ask. */
    public Model setCurrentVersion(String model, String version) {
        return Caller.await(async.setCurrentVersion(model, version));
    }

    /** Undeploys a version. */
    public void deleteModelVersion(String model, String version) {
        Caller.await(async.deleteModelVersion(model, version));
    }

    /** Undeploys a model with all its versions. */
    public void deleteModel(String model) {
        Caller.await(async.deleteModel(model));
    }

    /** Opens a stream of queries. */
    public QueryStream stream() {
        return async.stream();
    }

    /**
     * Makes any call of the API: {@code call(ApplicationServiceGrpc.getGetCanaryMethod(), request)}.
     *
     * @throws IllegalArgumentException the method is a stream
     */
    public <Q extends Message, R extends Message> R call(MethodDescriptor<Q, R> method, Q request) {
        return Caller.await(async.call(method, request));
    }

    /**
     * Makes a call that answers with a stream, and gives each message to a function, one after the other, on a thread of gRPC:
     * {@code receive(ModelServiceGrpc.getReadLogsMethod(), request, System.out::println)}. Returns when the stream ends; what the function
     * throws ends it. There is no deadline but that of {@link #withTimeout}.
     *
     * @throws IllegalArgumentException the method is no such call
     */
    public <Q extends Message, R extends Message> void receive(MethodDescriptor<Q, R> method, Q request, Consumer<? super R> each) {
        Caller.await(async.receive(method, request, each));
    }

    /** Ends the connections; calls under way fail. */
    @Override
    public void close() {
        async.close();
    }
}
