"""Streams over TLS and over ssh. Imported only by connections that need them.

TLS runs over memory buffers rather than `ssl.SSLSocket`, because a hijacked stream must be half-closed: we send our
close_notify when standard input ends and go on reading, which `SSLSocket.unwrap` cannot do (it waits for the peer's).

ssh is docker's way: `ssh HOST -- havre system dial-stdio` (or docker's) joins the remote daemon's socket to its own
standard streams.
"""

from __future__ import annotations

import _socket
import posix
import ssl
from posix import memfd_create
from shlex import quote
from shutil import which

from havre.client.endpoint import SocketStream, TlsFiles
from havre.errors import Unavailable

_CHUNK = 64 << 10


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client context from PEM files: own CA or the system's, optional client certificate."""
    context = ssl.create_default_context(cafile=files.ca or None)
    # Python 3.13 refuses a CA without a key usage extension, which is what Docker's documentation tells people to make.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert and files.key:
        context.load_cert_chain(files.cert, files.key)
    return context


class TlsStream:
    """A TLS client connection that can be half-closed."""

    def __init__(self, sock: _socket.socket, server_name: str, files: TlsFiles) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls_context(files).wrap_bio(self._in, self._out, server_hostname=server_name)
        self._unsent = b""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._sock.sendall(self._out.read())
                self._feed()
        self._sock.sendall(self._out.read())

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, blocking: bool) -> None:
        self._sock.setblocking(blocking)

    def buffered(self) -> bool:
        """Report whether there are buffered bytes, decrypted or not, that polling the descriptor does not report."""
        return bool(self._tls.pending() or self._in.pending)

    def _feed(self) -> None:
        data = self._sock.recv(_CHUNK)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end; BlockingIOError when there are none and the stream is non-blocking."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send(self, data: bytes) -> int:
        """Accept all of `data`; BlockingIOError while earlier bytes are unsent."""
        self._flush()
        if self._unsent:
            raise BlockingIOError
        count = self._tls.write(data)
        self._unsent = self._out.read()
        self._flush()
        return count

    def sendall(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
        self._sock.sendall(self._unsent + self._out.read())
        self._unsent = b""

    def send_file(self, descriptor: int, count: int) -> int:
        """Send at most `count` of the next bytes of a file; returns the number sent, 0 at its end."""
        data = posix.read(descriptor, min(count, _CHUNK))
        self.sendall(data)
        return len(data)

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return

    def close_write(self) -> None:
        """Send close_notify; reading continues."""
        try:
            self._tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            pass
        try:
            self._sock.setblocking(True)
            self.sendall(b"")
        except OSError:  # the peer has already closed
            return

    def close(self) -> None:
        self._sock.close()


_DIAL = "if command -v havre >/dev/null 2>&1; then exec havre {0}; fi; exec docker {0}"


class SshStream(SocketStream):
    """ssh's standard streams. Raises Unavailable, with ssh's error output, if ssh ends before the daemon has
    answered."""

    def __init__(self, sock: _socket.socket, argv: list[str], pid: int, stderr: int) -> None:
        super().__init__(sock)
        self._argv = argv
        self._pid = pid
        self._stderr = stderr
        self._sock = sock
        self.recv = self._receive_first

    def _receive_first(self, size: int) -> bytes:
        try:
            data = self._sock.recv(size)
        except ConnectionResetError:  # the peer closed with unread data
            data = b""
        if not data:
            raise self._failure()
        self.recv = self._sock.recv
        return data

    def _failure(self) -> Unavailable:
        _, status = posix.waitpid(self._pid, 0)
        said = posix.pread(self._stderr, 8 << 10, 0).decode("utf-8", "replace").strip()
        return Unavailable(
            f"error during connect: command [{' '.join(self._argv)}] has exited with exit status "
            f"{posix.waitstatus_to_exitcode(status)}, make sure the URL is valid, and havre or Docker 18.09 or later "
            f"is installed on the remote host: stderr={said}"
        )


def connect_ssh(address: str) -> SshStream:
    """A stream to the daemon of an ssh host, `[user@]host[:port][/path/to.sock]`. Raises Unavailable without ssh.

    The remote command line is havre's where it is installed, else docker's.
    """
    program = which("ssh")
    if program is None:
        raise Unavailable("ssh is not installed", "install the package openssh-client")
    target, slash, path = address.partition("/")
    user, at, host = target.rpartition("@")
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    dial = f"--host {quote('unix:///' + path)} system dial-stdio" if slash and path else "system dial-stdio"
    argv = [program, "-o", "ConnectTimeout=30", "-T", *(["-l", user] if at else []), *(["-p", port] if port else [])]
    argv += ["--", name.strip("[]"), f"sh -c {quote(_DIAL.format(dial))}"]
    ours, theirs = _socket.socketpair()
    stderr = memfd_create("ssh-stderr")  # not a pipe, which would have to be drained
    actions = [(posix.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (posix.POSIX_SPAWN_DUP2, theirs.fileno(), 1)]
    actions += [(posix.POSIX_SPAWN_DUP2, stderr, 2)]
    pid = posix.posix_spawn(program, argv, posix.environ, file_actions=actions)
    theirs.close()
    return SshStream(ours, argv, pid, stderr)
