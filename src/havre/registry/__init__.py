"""Client of registries that implement the OCI distribution specification (Docker's "v2")."""

from havre.registry.auth import Auth, DelegatedAuth
from havre.registry.client import Fetched, Registry
from havre.registry.endpoints import RegistryConfig
from havre.registry.search import FoundRepository
from havre.registry.signatures import Policy, PublicKey, require_signature

__all__ = [
    "Auth",
    "DelegatedAuth",
    "Fetched",
    "FoundRepository",
    "Policy",
    "PublicKey",
    "Registry",
    "RegistryConfig",
    "require_signature",
]
