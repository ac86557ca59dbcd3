"""`PromptClient`: a client of Dask that doesn't wait for ever to be connected."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from distributed import Client

from xrf_sr_plans.errors import in_words

_SPARE_S = 0.5
"""How much longer than its own timeout Dask may take, which tells more than we could."""


class PromptClient(Client):
    """A client of Dask that can also be kept waiting by what answers, and says nothing.

    Dask's timeout is for the connection. Once that is there, the first words of the scheduler are
    waited for without end, be it a scheduler that hangs or no scheduler at all.
    """

    def start(self, *, timeout: float, **how: Any) -> None:
        """Connect, or raise an OSError or ImportError and have nothing left of the attempt."""
        try:
            super().start(timeout=timeout, callback_timeout=timeout + _SPARE_S, **how)
        except TimeoutError as error:
            self._leave()
            raise TimeoutError(f"nothing is said there for {timeout:g} s") from error
        except (ImportError, OSError):
            raise
        except Exception as error:
            # Dask takes the first bytes for a length, whatever speaks there: memory may not do.
            self._leave()
            raise ConnectionError(f"what answers there is something else: {in_words(error)}") from (
                error
            )

    def _leave(self) -> None:
        with suppress(Exception):  # It is of no use any more, however it ends.
            self.close(timeout=1)
