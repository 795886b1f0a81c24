"""Copy the packages of a lock file out of the virtual environment that runs this: copy_packages.py LOCK SITE_PACKAGES.

Status 1, and the target as it was found half-way, when one is missing or of another version. Programs are not copied.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement


def main(lock: str, target: str) -> int:
    """Copy all; the exit status."""
    for requirement in _requirements(Path(lock).read_text()):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            return _refuse(f"{requirement} is not there")
        if not requirement.specifier.contains(found.version, prereleases=True):
            return _refuse(f"{requirement} is wanted, {found.version} is there")
        _copy(found, Path(target))
    return 0


def _requirements(text: str) -> list[Requirement]:
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [Requirement(line.partition(" --hash")[0]) for line in lines if line and not line.startswith(("#", "-"))]


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
