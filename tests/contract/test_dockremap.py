"""--userns-remap=default: the user dockremap and its ranges are made, in an /etc of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.engines import Havred, serving

_OWN_ETC = 'mount --bind "$0" /etc; exec "$@"'


class _WithOwnEtc(Havred):
    """havred with --userns-remap=default in a mount namespace whose /etc is a copy without dockremap."""

    def __init__(self) -> None:
        super().__init__(("--userns-remap", "default"))
        self.root.chmod(0o711)
        self.etc = self.root / "etc"
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)
        for file in ("passwd", "shadow", "group", "gshadow"):
            kept = [line for line in self.lines(file) if not line.startswith("dockremap:")]
            (self.etc / file).write_text("".join(f"{line}\n" for line in kept))
        (self.etc / "subuid").write_text("one:100000:65536\ntwo:165536:1000\n")
        (self.etc / "subgid").write_text("one:100001:10\n")

    def lines(self, file: str) -> list[str]:
        """Those of a file of its /etc."""
        return (self.etc / file).read_text().splitlines()

    @property
    def inside(self) -> list[str]:
        apart = ["unshare", "--mount", "--propagation", "private"]
        return [*super().inside, *apart, "sh", "-ec", _OWN_ETC, str(self.etc)]


def test_the_default_user_and_its_ranges_are_made(archive: Path) -> None:
    with serving(_WithOwnEtc(), archive) as engine:
        assert isinstance(engine, _WithOwnEtc)
        (user,) = (line for line in engine.lines("passwd") if line.startswith("dockremap:"))
        assert user.endswith(":/bin/false")
        assert any(line.startswith("dockremap:") for line in engine.lines("group"))
        assert engine.lines("subuid")[2:] == ["dockremap:166536:65536"]
        assert engine.lines("subgid")[1:] == ["dockremap:100011:65536"]
        assert engine.out("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split() == ["0", "166536", "65536"]
        engine.stop()
        engine.start()
        assert len(engine.lines("subuid")) == 3, "the second start finds it"
