#!/bin/sh
# What `make run` ends with: the daemon is up, the embedded images exist, two containers have run.
set -eu
cd "$(dirname "$0")/.."
havre=$PWD/.venv/bin/havre

for image in busybox hello; do
    if ! "$havre" image inspect --format '{{.Id}}' "$image:latest" >/dev/null 2>&1; then
        [ -f build/images/$image.tar ] || .venv/bin/python tools/embedded_images.py build/images
        "$havre" load -q -i "build/images/$image.tar"
    fi
done
"$havre" run --rm hello
echo
"$havre" run --rm busybox sh -c 'echo "hostname  $(hostname)"; echo "PID 1     $(cat /proc/1/comm)"; echo "address   $(ip -4 -o addr show eth0 | tr -s " " | cut -d" " -f4)"'
