"""Copy the packages of a lock file out of the virtual environment that runs this: copy_packages.py LOCK SITE_PACKAGES.

Status 1, and the target as it was found half-way, when one is missing or of another version. One that only some systems
or Pythons want (its line has a marker) may be missing: it was installed where it is wanted. Programs are not copied.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def main(lock: str, target: str) -> int:
    """Copy all; the exit status."""
    for name, version, marker in re.findall(r"^([\w.-]+)==([^\s;]+) *(;?)", Path(lock).read_text(), re.MULTILINE):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if marker:
                continue
            return _refuse(f"{name} is not there")
        if found.version != version:
            return _refuse(f"{name} {version} is wanted, {found.version} is there")
        _copy(found, Path(target))
    return 0


def _copy(found: Distribution, target: Path) -> None:
    for file in found.files or ():
        if file.parts[0] != "..":
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), place)


def _refuse(why: str) -> int:
    print(f"copy_packages.py: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
