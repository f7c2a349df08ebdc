// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Says how a client reaches Clipper; without more it is a Clipper on this machine. Not for several threads at once. */
public final class ClientBuilder {
    private static final int MAX_MESSAGE = 64 << 20;
    /** The silence after which a connection with calls under way is probed, and the one after which it is given up. */
    private static final long KEEP_ALIVE_SECONDS = 30;
    private static final long KEEP_ALIVE_TIMEOUT_SECONDS = 10;

    private String address = "127.0.0.1:1347";
    private String adminAddress = "127.0.0.1:1348";
    private boolean tls;
    private Path caFile;
    private Path certFile;
    private Path keyFile;
    private String serverName;
    private String apiKey;
    private Duration timeout = Duration.ofSeconds(30);
    private int attempts = 4;
    private final List<ClientInterceptor> interceptors = new ArrayList<>();

    ClientBuilder() {}

    /** Where queries and feedback go: {@code host:port}, or {@code unix:/path} on Linux. Default {@code 127.0.0.1:1347}. */
    public ClientBuilder address(String address) {
        this.address = address;
        return this;
    }

    /** Where administration goes. Default {@code 127.0.0.1:1348}. */
    public ClientBuilder adminAddress(String address) {
        adminAddress = address;
        return this;
    }

    /** Turns TLS on, with the authorities that the JVM or the system trusts. */
    public ClientBuilder tls() {
        tls = true;
        return this;
    }

    /** Turns TLS on, with the certificates (PEM) of the authorities that may have signed the server's. */
    public ClientBuilder caFile(Path pem) {
        caFile = pem;
        return tls();
    }

    /** Turns TLS on, with a certificate and a key of the client's own: PEM, the key as PKCS #8. */
    public ClientBuilder clientCertificate(Path certificate, Path key) {
        certFile = certificate;
        keyFile = key;
        return tls();
    }

    /** The name that the server's certificate must have, when it is not the one of the address. */
    public ClientBuilder serverName(String name) {
        serverName = name;
        return this;
    }

    /** An API key or a JWT, sent with every call. Without TLS it is sent to this machine only. */
    public ClientBuilder apiKey(String key) {
        if (key.isEmpty() || !key.chars().allMatch(c -> c > ' ' && c < 0x7f)) {
            throw new IllegalArgumentException("the API key is empty, or has characters that are not printable ASCII");
        }
        apiKey = key;
        return this;
    }

    /**
     * Bounds a call with its repetitions; a query with a timeout of its own is given a second more than that instead. Default 30 s.
     * Streams are not bounded.
     */
    public ClientBuilder timeout(Duration timeout) {
        this.timeout = timeout;
        return this;
    }

    /**
     * How often a call that is safe to repeat is made at most, when Clipper cannot be reached (UNAVAILABLE): queries, reads, and
     * feedback with a feedback_id or an id. Default 4; 1 repeats nothing.
     */
    public ClientBuilder attempts(int attempts) {
        if (attempts < 1) {
            throw new IllegalArgumentException("attempts is " + attempts + "; it must be at least 1");
        }
        this.attempts = attempts;
        return this;
    }

    /** Adds interceptors, which see each attempt; the first sees a call first. None of them sees the API key. */
    public ClientBuilder intercept(ClientInterceptor... interceptors) {
        this.interceptors.addAll(Arrays.asList(interceptors));
        return this;
    }

    /**
     * Returns a client that blocks. It connects at the first call.
     *
     * @throws IllegalArgumentException the configuration cannot be used
     */
    public ClipperClient build() {
        return new ClipperClient(buildAsync());
    }

    /**
     * Returns a client that returns futures. It connects at the first call.
     *
     * @throws IllegalArgumentException the configuration cannot be used
     */
    public AsyncClipperClient buildAsync() {
        var caller = new Caller(timeout, false, attempts);
        ChannelCredentials credentials = credentials();
        ManagedChannel queries = connect(address, credentials);
        ManagedChannel admin;
        try {
            admin = connect(adminAddress, credentials);
        } catch (IllegalArgumentException e) {
            queries.shutdownNow();
            throw e;
        }
        return new AsyncClipperClient(caller, List.of(queries, admin), intercepted(queries), intercepted(admin));
    }

    private ChannelCredentials credentials() {
        if (!tls) {
            return InsecureChannelCredentials.create();
        }
        TlsChannelCredentials.Builder b = TlsChannelCredentials.newBuilder();
        try {
            if (caFile != null) {
                b.trustManager(certificates(caFile));
            }
            if (certFile != null) {
                b.keyManager(certificates(certFile), readable(keyFile));
            }
        } catch (IOException e) {
            throw new IllegalArgumentException("TLS: " + e.getMessage(), e);
        }
        return b.build();
    }

    /** gRPC would say that there is none, but not where. */
    private static File certificates(Path pem) throws IOException {
        try (InputStream in = Files.newInputStream(readable(pem).toPath())) {
            if (!CertificateFactory.getInstance("X.509").generateCertificates(in).isEmpty()) {
                return pem.toFile();
            }
        } catch (CertificateException e) {
            throw new IOException(pem + " has no certificates in the form PEM: " + e.getMessage(), e);
        }
        throw new IOException(pem + " has no certificate in the form PEM");
    }

    private static File readable(Path p) throws IOException {
        if (!p.toFile().canRead()) {
            throw new IOException(p + " cannot be read");
        }
        return p.toFile();
    }

    private ManagedChannel connect(String address, ChannelCredentials credentials) {
        if (apiKey != null && !tls && !isLocal(address)) {
            throw new IllegalArgumentException("the API key would be sent to " + address + " without TLS, for all to read: set caFile or tls");
        }
        ManagedChannelBuilder<?> b;
        ManagedChannel channel;
        try {
            String target = address.startsWith("unix:") ? address : "dns:///" + address.replace("[", "%5B").replace("]", "%5D"); // IPv6.
            b = Grpc.newChannelBuilder(target, credentials)
                .userAgent("clipper-java/" + ClipperClient.VERSION)
                .maxInboundMessageSize(MAX_MESSAGE)
                .keepAliveTime(KEEP_ALIVE_SECONDS, TimeUnit.SECONDS)
                .keepAliveTimeout(KEEP_ALIVE_TIMEOUT_SECONDS, TimeUnit.SECONDS);
            if (serverName != null) {
                b.overrideAuthority(serverName);
            }
            channel = b.build();
        } catch (RuntimeException e) { // Certificates that cannot be read, addresses that are none.
            throw new IllegalArgumentException("connect to " + address + ": " + cause(e), e);
        }
        Reconnection.watch(channel);
        return channel;
    }

    private static String cause(Throwable e) {
        while (e.getCause() != null) {
            e = e.getCause();
        }
        return e.getMessage();
    }

    private Channel intercepted(Channel channel) {
        List<ClientInterceptor> all = new ArrayList<>(interceptors);
        if (apiKey != null) {
            var headers = new Metadata();
            headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + apiKey);
            all.add(MetadataUtils.newAttachHeadersInterceptor(headers));
        }
        return ClientInterceptors.interceptForward(channel, all);
    }

    /** Says whether an address is of this machine, so that nothing leaves it. */
    private static boolean isLocal(String address) {
        return address.matches("unix:.*|(localhost|127(\\.\\d{1,3}){3}|\\[::1\\]):\\d+");
    }
}
