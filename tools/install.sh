#!/bin/sh
# Put havre and havred on PATH, with systemd units (socket-activated), man pages and shell completion; or take them away.
#   tools/install.sh install [--docker-socket] | uninstall
#   PREFIX=/usr/local   DESTDIR= (for packagers: nothing is started)   DOCKER_SOCKET=1 (as --docker-socket)
#
# A daemon that runs already, as `make run` leaves one, hands over to the service; its containers run on.
set -eu
cd "$(dirname "$0")/.."
checkout=$PWD
prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
home=$prefix/lib/havre
units=/etc/systemd/system
man=$prefix/share/man
accounts=$prefix/lib/sysusers.d/havre.conf
bash_completion=$prefix/share/bash-completion/completions/havre
zsh_completion=$prefix/share/zsh/site-functions/_havre
fish_completion=$prefix/share/fish/vendor_completions.d/havre.fish
group=havre
socket=/run/havre.sock
docker_socket=/run/docker.sock
pid_file=/run/havre/havred.pid
case ${DOCKER_SOCKET:-} in
    '' | 0 | no | false) with_docker_socket= ;;
    *) with_docker_socket=1 ;;
esac
stop_s=60

with_systemd() {
    [ -z "$dest" ] && [ -d /run/systemd/system ]
}

say() {
    echo "install.sh: $*" >&2
}

install_files() {
    mkdir -p "$dest$home" "$dest$prefix/bin" "$dest$units" "$dest$man/man1" "$dest$man/man8" "$(dirname "$dest$accounts")" \
        "$(dirname "$dest$bash_completion")" "$(dirname "$dest$zsh_completion")" "$(dirname "$dest$fish_completion")"
    rm -rf "$dest$home/src" "$dest$home/tools"
    cp -R src tools requirements.lock requirements-test.lock "$dest$home/"
    find "$dest$home/src" -name __pycache__ -prune -exec rm -rf {} +
    VENV=$dest$home/venv PACKAGES_FROM=$checkout/.venv "$dest$home/tools/setup.sh"
    ln -sf "$home/venv/bin/havre" "$home/venv/bin/havred" "$dest$prefix/bin/"
    for shell in bash zsh fish; do
        eval "file=\$${shell}_completion"
        "$dest$home/venv/bin/havre" completion "$shell" >"$dest$file"
    done
    remove_man_pages
    "$dest$home/venv/bin/havre" completion man "$dest$man/man1"
    "$dest$home/venv/bin/python" -I -c 'from havre.daemon.directives import man_page; print(man_page(), end="")' >"$dest$man/man8/havred.8"
    echo "g $group -" >"$dest$accounts"
    [ -z "$dest" ] || forget_dest
}

remove_man_pages() {
    rm -f "$dest$man/man1/havre.1" "$dest$man"/man1/havre-*.1 "$dest$man/man8/havred.8"
}

# What is packed up below DESTDIR will lie elsewhere when it runs.
forget_dest() {
    grep -rlIF "$dest$home" "$dest$home/venv/bin" "$dest$home/venv/pyvenv.cfg" "$dest$home"/venv/lib/python*/site-packages/*.pth |
        xargs sed -i "s|$dest$home|$home|g"
    rm -f "$dest$home"/venv/.havre-setup*
}

add_group() {
    [ -z "$dest" ] || return 0
    getent group "$group" >/dev/null || groupadd --system "$group"
}

write_units() {
    link=
    [ -z "$with_docker_socket" ] || link="Symlinks=$docker_socket"
    cat >"$dest$units/havre.socket" <<UNIT
[Unit]
Description=havre API socket
Documentation=man:havred(8)

[Socket]
ListenStream=$socket
SocketMode=0660
SocketGroup=$group
RemoveOnStop=yes
$link

[Install]
WantedBy=sockets.target
UNIT
    cat >"$dest$units/havre.service" <<UNIT
[Unit]
Description=havre container engine
Documentation=man:havred(8)
# Stopped in reverse: containers end while there is still a network and what they mount.
After=network-online.target nss-lookup.target nftables.service firewalld.service remote-fs.target time-set.target
Wants=network-online.target
Requires=havre.socket
RequiresMountsFor=/var/lib/havre
# A daemon that cannot start is given up, and with it the socket: clients get an error, and do not wait.
StartLimitIntervalSec=120
StartLimitBurst=5

[Service]
Type=notify
ExecStart=$prefix/bin/havred -H fd://
ExecReload=/bin/kill -s HUP \$MAINPID
Restart=on-failure
TimeoutStartSec=300
# Containers outlive the daemon: only the daemon's own process is stopped. With the host it stops them first.
KillMode=process
Delegate=yes
LimitNOFILE=infinity
TasksMax=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
UNIT
}

# The PID of a daemon on the default paths, "" where none runs.
running_daemon() {
    pid=$(cat "$pid_file" 2>/dev/null) || return 0
    if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q havred; then echo "$pid"; fi
}

# A daemon that ends leaves its containers running; the next one takes them over.
stop_daemon() {
    pid=$(running_daemon)
    [ -n "$pid" ] || return 0
    echo "Stopping the daemon that runs (PID $pid); its containers run on"
    kill "$pid"
    waited=0
    while [ -n "$(running_daemon)" ]; do
        [ "$waited" -lt $((stop_s * 10)) ] || { say "the daemon (PID $pid) has not ended within $stop_s s"; exit 1; }
        sleep 0.1
        waited=$((waited + 1))
    done
}

# No other daemon's socket is taken away.
check_docker_socket() {
    [ -n "$with_docker_socket" ] && [ -z "$dest" ] || return 0
    target=$(readlink "$docker_socket") || target=
    if [ -e "$docker_socket" ] && [ "$target" != "$socket" ]; then
        say "$docker_socket exists: another engine's, it seems"
        say "stop that one (systemctl disable --now docker.socket docker.service), or install without --docker-socket"
        exit 1
    fi
}

start_service() {
    systemctl daemon-reload
    systemctl stop havre.service havre.socket
    stop_daemon
    systemctl reset-failed havre.service havre.socket 2>/dev/null || true
    systemctl enable --quiet havre.socket havre.service
    systemctl start havre.service || { say "havre.service does not start; see: journalctl -u havre.service -n 20"; exit 1; }
}

tell_next_steps() {
    echo "Installed: $prefix/bin/havre, $prefix/bin/havred; man havre-run, man havred"
    [ -z "$dest" ] || return 0
    echo
    echo "Next:"
    if with_systemd; then
        echo "  The daemon runs, and starts at boot. How it is:       systemctl status havre;  journalctl -u havre"
    else
        echo "  The daemon starts with the first command that needs it (no systemd here)."
    fi
    echo "  Without sudo, for a user you trust as root:           usermod -aG $group USER   (and log in again)"
    echo "  Other clients of Docker's:                            export DOCKER_HOST=unix://$socket"
    if [ -n "$with_docker_socket" ]; then
        echo "  Those that know $docker_socket alone reach havre, too."
    else
        echo "  Those that know $docker_socket alone:               make install DOCKER_SOCKET=1"
    fi
    echo "  Settings, in the format of Docker's daemon.json:      /etc/havre/daemon.json   (then: systemctl reload havre)"
    echo "  A first container:                                    havre run --rm -it busybox"
}

remove_docker_socket() {
    [ -n "$dest" ] || [ "$(readlink "$docker_socket")" != "$socket" ] || rm -f "$docker_socket"
}

action=${1:-}
[ $# = 0 ] || shift
for option in "$@"; do
    case $option in
        --docker-socket) with_docker_socket=1 ;;
        *) say "unknown option $option"; exit 2 ;;
    esac
done

case $action in
    install)
        check_docker_socket
        add_group
        install_files
        write_units
        if with_systemd; then
            start_service
        else
            [ -n "$dest" ] || stop_daemon
            [ -n "$dest" ] || [ -z "$with_docker_socket" ] || ln -sfn "$socket" "$docker_socket"
        fi
        tell_next_steps
        ;;
    uninstall)
        if with_systemd && [ -f "$units/havre.service" ]; then
            systemctl disable --now havre.service havre.socket
        fi
        remove_docker_socket
        rm -f "$dest$prefix/bin/havre" "$dest$prefix/bin/havred" "$dest$units/havre.service" "$dest$units/havre.socket" \
            "$dest$accounts" "$dest$bash_completion" "$dest$zsh_completion" "$dest$fish_completion"
        remove_man_pages
        rm -rf "$dest$home"
        if with_systemd; then systemctl daemon-reload; fi
        echo "Removed; images, volumes and containers stay in /var/lib/havre"
        ;;
    *)
        echo "usage: install.sh install [--docker-socket] | uninstall" >&2
        exit 2
        ;;
esac
