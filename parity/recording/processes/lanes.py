"""Record the two sides of a pair at the same time, as far as the plan allows."""

from collections.abc import Callable, Sequence
from threading import Event, Thread

from parity.recording.pair import SIDES
from parity.recording.processes.plan import Request


def run_lanes(
    requests: Sequence[Request], record: Callable[[Request], None], stop: Callable[[], None]
) -> None:
    """Call `record` for each request: those of one side in their order, in a thread of the side.

    A request begins when the recordings that it follows or is fed from are done. The first error of
    a side ends both, and is raised here. `stop` is called if this thread is interrupted.
    """
    done = {request.name: Event() for request in requests}
    errors: list[BaseException] = []

    def lane(own: Sequence[Request]) -> None:
        try:
            for request in own:
                for needed in (request.follow, request.source):
                    if needed:
                        done[needed].wait()
                if errors:
                    return
                record(request)
                done[request.name].set()
        except BaseException as error:
            errors.append(error)
        finally:
            for request in own:  # nobody waits for what will never come
                done[request.name].set()

    lanes = [[request for request in requests if request.side == side] for side in SIDES]
    threads = [Thread(target=lane, args=(own,), daemon=True) for own in lanes]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        stop()
        raise
    if errors:
        raise errors[0]
