"""A certificate authority, a server's and a client's certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> None:
    """ca.pem, server and client pairs, by the commands of "Protect the Docker daemon socket"."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    openssl("genrsa", "-out", "ca-key.pem", "2048")
    # No key usage extension, like certificates of older openssl versions by the same command.
    (folder / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=CA:TRUE\n"
    )
    openssl("req", "-new", "-x509", "-key", "ca-key.pem", "-subj", "/CN=ca", "-out", "ca.pem", "-config", "ca.cnf")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / "ext.cnf").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl("genrsa", "-out", f"{name}-key.pem", "2048")
        openssl("req", "-new", "-key", f"{name}-key.pem", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        signer = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "ext.cnf")
        openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem")
