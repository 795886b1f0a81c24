"""The kernel's side of networks: addresses, plans, and their application through netlink and nftables."""
