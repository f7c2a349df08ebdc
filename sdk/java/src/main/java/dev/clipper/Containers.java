// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import dev.clipper.v1.Adapter;
import dev.clipper.v1.Address;
import dev.clipper.v1.Command;
import dev.clipper.v1.Container;
import dev.clipper.v1.Image;
import java.util.List;

/** Where a model comes from when it is deployed. Add variables, limits and more with {@code toBuilder()}. */
public final class Containers {
    private Containers() {}

    /** An image, run by the launcher docker or kubernetes. */
    public static Container image(String reference) {
        return Container.newBuilder().setImage(Image.newBuilder().setReference(reference)).build();
    }

    /** A saved model and the adapter of its framework; the path is absolute, on the machine that runs the replicas. */
    public static Container adapter(String framework, String modelPath) {
        return Container.newBuilder().setAdapter(Adapter.newBuilder().setFramework(framework).setModelPath(modelPath)).build();
    }

    /** A program and its arguments, run by the launcher process. */
    public static Container command(String... arguments) {
        return Container.newBuilder().setCommand(Command.newBuilder().addAllArguments(List.of(arguments))).build();
    }

    /** A container that runs already: {@code host:port} or {@code unix:/path}. */
    public static Container address(String address) {
        return Container.newBuilder().setAddress(Address.newBuilder().setAddress(address)).build();
    }
}
