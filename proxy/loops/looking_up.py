"""What the name in a URL stands for, asked before the URL is taken.

Owns: asking. Knows nothing of: which addresses are allowed (`core.addresses`), who wants to call the URL.
"""

from proxy.core.addresses import read_url
from proxy.forward import UpstreamFailure
from proxy.forward.pool import Pool


class LookUp:
    """Looks names up as the pool will that dials them. `own_child`: loopback is fine, a workspace may be a child."""

    def __init__(self, pool: Pool | None, *, own_child: bool) -> None:
        self._pool = pool
        self._own_child = own_child

    async def problem(self, url: str) -> str | None:
        """Why the addresses of a URL's name must not be dialled; None also where it does not resolve (yet)."""
        if self._pool is None:
            return None
        try:
            await self._pool.resolve(read_url(url), own_child=self._own_child)
        except UpstreamFailure as failure:
            return failure.detail if failure.reason == "forbidden_address" else None
        except ValueError:
            return None  # what is wrong with its form is said elsewhere
        return None
