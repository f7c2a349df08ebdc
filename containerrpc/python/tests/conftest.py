# SPDX-License-Identifier: Apache-2.0
import clipper_container.testing  # noqa: F401  # sets how gRPC forks, before any test imports gRPC
