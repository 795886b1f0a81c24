"""An emulated Debian with systemd, cgroup v2 and AppArmor, driven by scripts (docs/why/tests.md#the-emulated-host)."""

from support.machine.host import EMULATOR, Machine, Ran, shell
from support.machine.image import Image, image

__all__ = ["EMULATOR", "Image", "Machine", "Ran", "image", "shell"]
