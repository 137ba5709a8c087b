"""The order of things: each flow is one story, read, add, serve, tell; nothing else is decided or done here."""
