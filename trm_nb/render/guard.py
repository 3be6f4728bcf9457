"""Runs a decoder on content that nobody vouches for: bounded in time, and whatever it raises is a reason.

Choice: decoders raise many kinds of errors on damaged input (OSError, SyntaxError, struct.error, RuntimeError without a
message), so all are caught. Code in C is not interrupted, only what follows it; a worker process has the watchdog of
workers/worker.py for that, if the modality is `untrusted`.
Cost: a few microseconds a call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from trm_nb.errors import RejectedError
from trm_nb.render.image_files.time_limit import TimeLimitError, time_limit

T = TypeVar("T")

DECODE_SECONDS = 30.0


def guarded(work: Callable[[], T], what: str) -> T:
    """The result of `work`, which decodes `what` ("the image").

    Raises:
        RejectedError: `work` raised it, or anything else; retryable where it took longer than DECODE_SECONDS
            or more memory than there is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged metadata and the like; what matters raises
        try:
            with time_limit(DECODE_SECONDS):
                return work()
        except RejectedError:
            raise
        except TimeLimitError:
            raise RejectedError(f"took longer than {DECODE_SECONDS:g} s to decode", retryable=True) from None
        except MemoryError:
            raise RejectedError("there was not enough memory to decode it", retryable=True) from None
        except Exception as error:
            raise RejectedError(f"{what} cannot be decoded: {str(error) or type(error).__name__}") from error
