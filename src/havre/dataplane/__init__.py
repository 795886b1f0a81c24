"""Addresses, network plans and their application through netlink and nftables."""
