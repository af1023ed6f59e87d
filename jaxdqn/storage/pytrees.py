"""Arrays on disk, written by orbax; no other module imports orbax."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def save_arrays(folder: Path, arrays: Any) -> None:
    """Write a pytree of arrays; the write is complete when this returns.

    Raises:
        OSError: If it cannot be written.
    """
    # Not the asynchronous checkpointer: its threads continue to write after the disk is full.
    options = _this_process_only()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with _as_os_error(folder), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(folder.absolute(), args=ocp.args.StandardSave(jax.tree.map(np.asarray, arrays)))


def shapes_of(folder: Path) -> Any:
    """Return the pytree of shapes of the arrays in a folder."""
    with ocp.StandardCheckpointer(multiprocessing_options=_this_process_only()) as checkpointer:
        stored = checkpointer.metadata(folder.absolute()).item_metadata
    return jax.tree.map(lambda leaf: tuple(leaf.shape), getattr(stored, "tree", stored))


def load_arrays(folder: Path, like: Any) -> Any:
    """Read a pytree of arrays. Check shapes and dtypes before: orbax casts and reshapes to those of `like`."""
    with ocp.StandardCheckpointer(multiprocessing_options=_this_process_only()) as checkpointer:
        return checkpointer.restore(folder.absolute(), like)


def _this_process_only() -> ocp.options.MultiprocessingOptions:
    """Return options with which this process reads and writes without waiting for the run's other processes."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


@contextlib.contextmanager
def _as_os_error(folder: Path) -> Iterator[None]:
    """Raise the disk's error as a short `OSError`: of a full disk, orbax raises a `ValueError` of two pages."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # each of its threads logs the same error again
    try:
        yield
    except (ValueError, RuntimeError) as error:
        message = str(error)
        known = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EIO)
        number = next((number for number in known if os.strerror(number) in message), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error
    finally:
        logger.setLevel(level)
