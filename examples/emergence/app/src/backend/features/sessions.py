"""Sessions: the conversations that this instance has seen."""

from collections import OrderedDict


class Sessions:
    """Names and lengths of conversations, the oldest forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: OrderedDict[str, int] = OrderedDict()

    def add(self, session: str, message: str) -> None:
        """Counts a message; an empty one opens the session only."""
        self._messages[session] = self._messages.get(session, 0) + bool(message)
        self._messages.move_to_end(session)
        while len(self._messages) > self._capacity:
            self._messages.popitem(last=False)

    def list(self) -> list[dict[str, object]]:
        """The sessions, newest first."""
        return [{"id": session, "messages": count} for session, count in reversed(self._messages.items())]
