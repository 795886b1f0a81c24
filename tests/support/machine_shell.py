"""`make machine`: a root shell in the emulated host, with the checkout mounted where it is here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.machine import image, shell

if __name__ == "__main__":
    print("Booting; `poweroff` leaves the machine, Ctrl-A X kills it.")
    shell(image())
