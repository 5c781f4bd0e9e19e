"""A connection to a server in a thread of its own, which sends many requests at the same time."""

import contextlib
import dataclasses
import difflib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from jaxalign.errors import UserError
from jaxalign.inference.server import JsonServer, NoSuchPath, said

Parsed = TypeVar("Parsed")


@contextlib.contextmanager
def connected(server: JsonServer) -> Iterator["Connection"]:
    """Give a connection, whose requests run in a thread of their own, because the caller's may have an event loop.

    An exception, such as Ctrl-C, cancels the requests that are on their way.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.client()) as client:
        yield Connection(server, client, portal)


@dataclasses.dataclass(frozen=True)
class Connection:
    """A client that is connected to a server, and the thread that its requests run in."""

    server: JsonServer
    client: httpx2.AsyncClient
    portal: BlockingPortal

    async def ask(self, path: str, body: dict[str, Any] | None, read: Callable[[Any], Parsed]) -> Parsed:
        """Return what `read` makes of the server's JSON (see `JsonServer.ask`)."""
        return await self.server.ask(self.client, path, body, read)

    def ask_all(
        self, jobs: Iterable[Callable[[], Awaitable[Parsed]]], concurrency: int, on_done: Callable[[int, Parsed], None]
    ) -> None:
        """Run jobs, at most `concurrency` at the same time; after one that failed, none is started.

        `on_done` is called with (number, result) from the caller's thread, as soon as a job has ended.

        Raises:
            Exception: what the first job that failed raised, after those that were running have ended.
        """
        left = enumerate(jobs)
        running: dict[Future[Parsed], int] = {}
        failed: BaseException | None = None
        while True:
            while failed is None and len(running) < concurrency and (job := next(left, None)) is not None:
                running[self.portal.start_task_soon(job[1])] = job[0]
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                if future.exception() is None:
                    on_done(number, future.result())
                else:
                    failed = failed or future.exception()
        if failed is not None:
            raise failed

    def check_models(self, models: Sequence[str], setting: str) -> None:
        """Check that the server has models of these names; a server may have no list of them.

        Raises:
            UserError: it has a list without one of the names (`setting` is where the user gives them), or it cannot be
                asked.
        """
        url = self.server.url

        def names(answer: Any) -> list[str]:
            try:
                return [str(model["id"]) for model in answer["data"]]
            except (KeyError, TypeError):
                raise UserError(f"{url}/models is no list of models: is {self.server.setting} right?") from None

        try:
            served = self.portal.call(self.ask, "models", None, names)
        except NoSuchPath:
            return
        for name in models:
            if name not in served:
                near = difflib.get_close_matches(name, served, n=1)
                listed = ", ".join(said(one) for one in served[:20]) + (", ..." if len(served) > 20 else "")
                hint = f"did you mean '{said(near[0])}'?" if near else f"it serves {listed or 'none'}"
                raise UserError(f"{url} serves no model '{name}'; {hint} ({setting} names them)")
