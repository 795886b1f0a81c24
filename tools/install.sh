#!/bin/sh
# Put havre and havred on PATH, with systemd units (socket-activated) and shell completion; or take them away again.
#   tools/install.sh install|uninstall       PREFIX=/usr/local   DESTDIR= (for packagers: nothing is started)
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
home=$prefix/lib/havre
units=/etc/systemd/system
bash_completion=$prefix/share/bash-completion/completions/havre
zsh_completion=$prefix/share/zsh/site-functions/_havre
fish_completion=$prefix/share/fish/vendor_completions.d/havre.fish

with_systemd() {
    [ -z "$dest" ] && [ -d /run/systemd/system ]
}

install_files() {
    mkdir -p "$dest$home" "$dest$prefix/bin" "$dest$units" "$(dirname "$dest$bash_completion")" \
        "$(dirname "$dest$zsh_completion")" "$(dirname "$dest$fish_completion")"
    rm -rf "$dest$home/src" "$dest$home/tools"
    cp -R src tools requirements.lock requirements-test.lock "$dest$home/"
    find "$dest$home/src" -name __pycache__ -prune -exec rm -rf {} +
    VENV=$dest$home/venv "$dest$home/tools/setup.sh"
    ln -sf "$home/venv/bin/havre" "$home/venv/bin/havred" "$dest$prefix/bin/"
    for shell in bash zsh fish; do
        eval "file=\$${shell}_completion"
        "$dest$home/venv/bin/havre" completion "$shell" >"$dest$file"
    done
    [ -z "$dest" ] || forget_dest
    write_units
}

# What is packed up below DESTDIR will lie elsewhere when it runs.
forget_dest() {
    grep -rlIF "$dest$home" "$dest$home/venv/bin" "$dest$home/venv/pyvenv.cfg" "$dest$home"/venv/lib/python*/site-packages/*.pth |
        xargs sed -i "s|$dest$home|$home|g"
    rm -f "$dest$home"/venv/.havre-setup*
}

# The first group that exists may connect, as with a daemon that listens by itself; elsewhere nobody knows the groups.
socket_group() {
    [ -z "$dest" ] || return 0
    for group in havre docker; do
        if getent group "$group" >/dev/null; then
            echo "SocketGroup=$group"
            return 0
        fi
    done
}

write_units() {
    cat >"$dest$units/havre.socket" <<UNIT
[Unit]
Description=havre API socket

[Socket]
ListenStream=/run/havre.sock
SocketMode=0660
$(socket_group)

[Install]
WantedBy=sockets.target
UNIT
    cat >"$dest$units/havre.service" <<UNIT
[Unit]
Description=havre container engine
After=network-online.target nftables.service
Wants=network-online.target
Requires=havre.socket

[Service]
Type=notify
ExecStart=$prefix/bin/havred -H fd://
ExecReload=/bin/kill -s HUP \$MAINPID
Restart=on-failure
# Containers outlive the daemon: only the daemon's own process is stopped.
KillMode=process
Delegate=yes
LimitNOFILE=infinity
TasksMax=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
UNIT
}

case ${1:-} in
    install)
        install_files
        if with_systemd; then
            systemctl daemon-reload
            systemctl enable --now havre.socket havre.service
        fi
        echo "Installed: $prefix/bin/havre, $prefix/bin/havred"
        ;;
    uninstall)
        if with_systemd && [ -f "$units/havre.service" ]; then
            systemctl disable --now havre.service havre.socket
        fi
        rm -f "$dest$prefix/bin/havre" "$dest$prefix/bin/havred" "$dest$units/havre.service" "$dest$units/havre.socket" \
            "$dest$bash_completion" "$dest$zsh_completion" "$dest$fish_completion"
        rm -rf "$dest$home"
        if with_systemd; then systemctl daemon-reload; fi
        echo "Removed; images, volumes and containers stay in /var/lib/havre"
        ;;
    *)
        echo "usage: install.sh install|uninstall" >&2
        exit 2
        ;;
esac
