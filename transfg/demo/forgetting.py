"""What gradio keeps of requests, and when it is dropped: gradio itself keeps it for hours.

Of each session, gradio keeps the last picture and its answer; of each request, the answer until
somebody reads it, which a reader that went away never does.
"""

from typing import Any

SESSIONS = 1000  # readers that gradio remembers; it knows nothing that a new one lacks
# sessions with messages to read; 17 requests at most wait or run, so none of these is pushed out
CHANNELS = 64
INTERVAL = 10  # seconds between two sweeps; an answer that two of them find unread is dropped


class Recent(dict[str, Any]):
    """Session -> its messages, for the sessions that were used last."""

    def __getitem__(self, session: str) -> Any:
        value = self.pop(session)
        super().__setitem__(session, value)  # now the last one
        return value

    def __setitem__(self, session: str, value: Any) -> None:
        super().__setitem__(session, value)
        if len(self) > CHANNELS:
            del self[next(iter(self))]


class Forgetting:
    """Drops what gradio's Blocks keep; every method runs in the server's event loop."""

    def __init__(self, blocks: Any) -> None:
        self.blocks = blocks
        self._unread: set[str] = set()  # sessions of answers that the last sweep found unread
        blocks.state_session_capacity = SESSIONS
        blocks._queue.pending_messages_per_session = Recent()

    def delivered(self) -> None:
        """Drop the last picture and the last answer of each session."""
        for session in self.blocks.state_holder.session_data.values():
            session.config_values.clear()

    async def sweep(self) -> None:
        """Also drop the answers that nobody has read since the last sweep."""
        self.delivered()
        queue = self.blocks._queue
        channels, expected = queue.pending_messages_per_session, queue.pending_event_ids_session
        busy = {event.session_hash for event in queue.event_ids_to_events.values()}
        unread = {session for session, channel in channels.items() if has_answer(channel)}
        for session in unread & self._unread:
            empty(channels[session])
            if session not in busy:
                del channels[session]
        for session in expected.keys() - channels.keys():
            del expected[session]
        self._unread = unread


def has_answer(channel: Any) -> bool:
    """Whether an answer is among the messages of an `asyncio.Queue`, which stay in it."""
    messages = empty(channel)
    for message in messages:
        channel.put_nowait(message)
    return any(message.msg == "process_completed" for message in messages)


def empty(channel: Any) -> list[Any]:
    """Take all messages out of an `asyncio.Queue`."""
    return [channel.get_nowait() for _ in range(channel.qsize())]
