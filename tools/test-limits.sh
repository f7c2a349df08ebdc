#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Test the limits of the process launcher in a virtual machine, for a machine that has no control groups of
# version 2, or does not let us make any. It needs qemu-system-x86_64, cpio, a static busybox and a kernel:
#   tools/test-limits.sh KERNEL    # for instance /boot/vmlinuz-...; Debian's linux-image-cloud-amd64 has one
set -euo pipefail
cd "$(dirname "$0")/.."
kernel=${1:?give the kernel, a bzImage}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir -p "$dir"/root/{bin,dev,proc,sys,tmp}
CGO_ENABLED=0 go test -c -o "$dir/root/process.test" ./abstraction/launcher/process
cp "$(command -v busybox)" "$dir/root/bin/busybox"
for name in sh sleep setsid mount mkdir grep poweroff; do ln -s busybox "$dir/root/bin/$name"; done
cat >"$dir/root/init" <<'EOF'
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PATH=/bin CLIPPER_REQUIRE_LIMITS=1
cd /sys/fs/cgroup
mkdir unit
echo "+cpu +memory +pids" >cgroup.subtree_control
# At the root of the hierarchy, and as the only process in a group that was delegated to it.
/process.test -test.v -test.timeout 2m &&
  sh -c 'echo $$ >unit/cgroup.procs && exec /process.test -test.v -test.timeout 2m' &&
  grep -q . unit/cgroup.controllers && [ -d unit/clipper-server ] && echo "limits: passed"
poweroff -f
EOF
chmod +x "$dir/root/init"
(cd "$dir/root" && find . | cpio -o -H newc --quiet) >"$dir/initramfs"

# Without KVM, which machines that are virtual themselves often lack; it takes some seconds all the same.
timeout 5m qemu-system-x86_64 -m 2G -smp 2 -nographic -no-reboot -nic none \
  -kernel "$kernel" -initrd "$dir/initramfs" -append "console=ttyS0 panic=-1" | tee "$dir/output"
grep -q "^limits: passed" "$dir/output"
