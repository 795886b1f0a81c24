#!/bin/sh
# Install what havre needs and is missing. Idempotent: a second call does nothing and takes milliseconds.
#   --test   also the linters and test libraries     --peers  also the programs that the tests compare with
#   VENV=DIR where the virtual environment goes (.venv)    PACKAGES_FROM=DIR another one, whose packages are copied
set -eu
cd "$(dirname "$0")/.."
root=$PWD
venv=${VENV:-$root/.venv}
lock=requirements.lock
peers=
packages="crun runc conmon nftables libnftables1 catatonit busybox-static git python3-venv"
# Its apparmor_parser loads the profile of containers; docs/why/security.md#the-default-isolation.
[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || packages="$packages apparmor"
for option in "$@"; do
    case $option in
        --test) lock=requirements-test.lock ;;
        --peers) peers=yes
            packages="$packages docker.io docker-cli docker-compose docker-buildx docker-registry skopeo podman buildah"
            packages="$packages mmdebstrap erofs-utils iproute2 iperf3 criu libcriu2 curl openssl" ;;
        *) echo "setup.sh: unknown option $option" >&2; exit 2 ;;
    esac
done

install_packages() {
    missing=
    for package in $packages; do
        [ -f "/var/lib/dpkg/info/$package.list" ] || ls "/var/lib/dpkg/info/$package":*.list >/dev/null 2>&1 ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || { echo "setup.sh: these packages are missing and only root can install them:$missing" >&2; exit 1; }
    echo "Installing system packages:$missing"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 || {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
    }
}

# The system's own interpreter starts in 6 ms; a shimmed one takes ten times as long.
choose_python() {
    for python in /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$python" -c 'import os, sys; print(os.path.realpath(sys.executable))'
            return
        fi
    done
    echo "setup.sh: Python 3.11 or newer is needed" >&2
    exit 1
}

install_python() {
    python=$(choose_python)
    wanted="$python $root $(cat requirements.lock "$lock" "$0" | cksum)"
    stamp=$venv/.havre-setup${lock#requirements}
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    copy_packages || download_packages
    echo "$root/src" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/havre.pth"
    write_launchers
    "$venv/bin/python" -m compileall -q src
    echo "$wanted" >"$stamp"
    # The test lock holds everything that the plain one does.
    echo "$python $root $(cat requirements.lock requirements.lock "$0" | cksum)" >"$venv/.havre-setup.lock"
}

# What another virtual environment has in the same versions needs no download.
copy_packages() {
    [ -n "${PACKAGES_FROM:-}" ] && [ "$(readlink -f "$PACKAGES_FROM/bin/python")" = "$python" ] || return 1
    "$python" -m venv --clear --without-pip "$venv"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$PACKAGES_FROM/bin/python" tools/copy_packages.py "$lock" "$site" || return 1
    echo "Copied Python packages from $PACKAGES_FROM"
}

download_packages() {
    [ -x "$venv/bin/pip" ] && [ "$(readlink -f "$venv/bin/python")" = "$python" ] || "$python" -m venv --clear "$venv"
    echo "Installing Python packages from $lock"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
}

# `havre` must start fast: no site module, one path entry; cli/main.py adds site-packages when it draws.
write_launchers() {
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cat >"$venv/bin/havre" <<LAUNCHER
#!$python -IS
import sys
sys.path.insert(0, "$root/src")
from havre.cli import main
main.SITE = "$site"
sys.exit(main.main())
LAUNCHER
    cat >"$venv/bin/havred" <<LAUNCHER
#!$venv/bin/python -I
import sys
from havre.daemon.program import main
sys.exit(main())
LAUNCHER
    chmod 755 "$venv/bin/havre" "$venv/bin/havred"
}

# The tests hand it to a kernel's binfmt_misc of their own; installed as a package, it may be registered with the machine's.
install_emulator() {
    [ ! -x "$venv/bin/qemu-aarch64" ] || return 0
    echo "Fetching qemu-aarch64 for the tests"
    fetched=$(mktemp -d)
    (cd "$fetched" && { apt-get download -qq qemu-user || { apt-get update -qq && apt-get download -qq qemu-user; }; }) 2>/dev/null
    dpkg-deb --fsys-tarfile "$fetched"/qemu-user_*.deb | tar -xO ./usr/bin/qemu-aarch64 >"$venv/bin/qemu-aarch64.new"
    rm -r "$fetched"
    chmod 755 "$venv/bin/qemu-aarch64.new"
    mv "$venv/bin/qemu-aarch64.new" "$venv/bin/qemu-aarch64"
}

# The emulated host (tests/machine) is skipped where there is no qemu for it.
install_qemu() {
    command -v qemu-system-x86_64 >/dev/null && return 0
    echo "Installing qemu-system-x86 for the emulated host"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends qemu-system-x86 >/dev/null 2>&1 ||
        echo "setup.sh: qemu-system-x86 cannot be installed: tests/machine will be skipped" >&2
}

install_packages
install_python
if [ -n "$peers" ]; then
    install_emulator
    install_qemu
fi
