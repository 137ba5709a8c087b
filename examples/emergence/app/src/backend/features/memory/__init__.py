"""Memory: what a message says about the person who wrote it."""


class Busy(Exception):
    """Too many messages wait to be analysed."""
