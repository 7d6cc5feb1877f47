"""Stand-ins for tests and benchmarks of the synthesis half: a cache in memory, and guards that let everything pass."""

from ropewalk.synth.engine import Completion, Request


class MemoryCache:
    """A request cache that dies with the process.

    Attributes:
        calls: What is in it, by key.
        requests: The requests behind it, by key.
    """

    def __init__(self) -> None:
        self.calls: dict[bytes, Completion] = {}
        self.requests: dict[bytes, Request] = {}

    def get(self, key: bytes) -> Completion | None:
        """The completion cached under a key, if there is one."""
        return self.calls.get(key)

    async def put(self, key: bytes, request: Request, completion: Completion, model: str) -> Completion:
        """Caches a completion; what is there already stays."""
        self.requests.setdefault(key, request)
        return self.calls.setdefault(key, completion)


class NoGuards:
    """Measures nothing and refuses nothing."""

    def check(self, text: str, *, language: str, prompt: str = "", whole: bool = False) -> dict[str, float]:
        """No figures."""
        return {}


def no_loop(tokens: object) -> None:
    """Finds no loop."""
