"""Arrays on disk by orbax; nothing else of ours knows it."""

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
    """Write a pytree of arrays; all of it is there when this returns.

    Raises:
        OSError: If it cannot be written.
    """
    # Not its asynchronous checkpointer, whose threads write on after a full disk has been met.
    options = _alone()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with _as_os_error(folder), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(folder.absolute(), args=ocp.args.StandardSave(jax.tree.map(np.asarray, arrays)))


def shapes_of(folder: Path) -> Any:
    """Shapes of the arrays in a folder, in their pytree."""
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        stored = checkpointer.metadata(folder.absolute()).item_metadata
    return jax.tree.map(lambda leaf: tuple(leaf.shape), getattr(stored, "tree", stored))


def load_arrays(folder: Path, like: Any) -> Any:
    """Read a pytree of arrays of known shapes and dtypes, which must be checked before: orbax casts and reshapes."""
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(folder.absolute(), like)


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process reads and writes by itself: it would wait for the others of a run otherwise."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


@contextlib.contextmanager
def _as_os_error(folder: Path) -> Iterator[None]:
    """What orbax says of a full disk is a `ValueError` of two pages."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # where it says the same again, from each of its threads
    try:
        yield
    except (ValueError, RuntimeError) as error:
        said = str(error)
        known = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EIO)
        number = next((number for number in known if os.strerror(number) in said), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error
    finally:
        logger.setLevel(level)
