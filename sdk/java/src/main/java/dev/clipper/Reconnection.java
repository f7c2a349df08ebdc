// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Connects a channel again after 50 ms, then twice as long each time up to 1 s, so that a server that was restarted is found within
 * a second. gRPC's own pauses, which Java does not let us set, are 1 s to 2 min.
 */
final class Reconnection {
    private static final long FIRST_MS = 50;
    private static final long LONGEST_MS = 1000;

    private final ManagedChannel channel;

    private Reconnection(ManagedChannel channel) {
        this.channel = channel;
    }

    /** Does so until the channel is shut down. */
    static void watch(ManagedChannel channel) {
        new Reconnection(channel).watch();
    }

    private void watch() {
        ConnectivityState state = channel.getState(false);
        if (state == ConnectivityState.SHUTDOWN) {
            return;
        }
        channel.notifyWhenStateChanged(state, this::watch);
        if (state == ConnectivityState.TRANSIENT_FAILURE) {
            again(FIRST_MS);
        }
    }

    private void again(long pauseMs) {
        CompletableFuture.delayedExecutor(pauseMs, TimeUnit.MILLISECONDS).execute(() -> {
            // The state stays this one from the first failure until there is a connection.
            if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
                channel.resetConnectBackoff();
                again(Math.min(2 * pauseMs, LONGEST_MS));
            }
        });
    }
}
