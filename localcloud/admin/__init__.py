"""What only a local cloud has: its status page, faults on request, and behaviour that can be switched."""
