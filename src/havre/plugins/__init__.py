"""Programs beside the daemon that answer Docker's plugin protocol: where they are, and how they are asked.

Nothing here knows what a volume is: `engine` says which calls it makes, this room carries them.
"""

from havre.plugins.calls import Patience, Plugin, Plugins
from havre.plugins.discovery import Directories

__all__ = ["Directories", "Patience", "Plugin", "Plugins"]
