"""Where process 0 listens for the others: on the coordinator's own address, or on all of this machine's."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from jaxdqn.launch import Launch, split_address

EVERYWHERE = "0.0.0.0"


def found_by_cluster(launch: Launch) -> tuple[str | None, int | None]:
    """Address of the coordinator and number of this process, as the flags or the cluster say; None where none does."""
    coordinator = launch.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is not None and launch.process_id is not None:
        return coordinator, launch.process_id
    index = launch.process_id
    with contextlib.suppress(Exception):  # `initialize` says what is wrong; where JAX moves this, all is listened on
        # JAX asks the cluster within `initialize`, which tells the answer when it listens already.
        from jax._src.clusters import ClusterEnv

        given = (coordinator, launch.num_processes, index, None, None, launch.connect_timeout)
        coordinator, _, index, *_ = ClusterEnv.auto_detect_unset_distributed_params(*given)
    return coordinator, index


def bind_address(coordinator: str | None, bind: str | None = None) -> str | None:
    """Where process 0 is to listen, as HOST:PORT.

    Args:
        coordinator: HOST:PORT where the others look for it.
        bind: `Launch.coordinator_bind`.

    Raises:
        ValueError: If `bind` is no address of this machine, or its port is taken.

    Returns:
        `bind` where it is given, else the coordinator's address if it is one of this machine's that other hosts can
        reach, or the machine itself is named; None: JAX's own choice, all addresses.
    """
    if coordinator is None:
        return None
    host, port = split_address(coordinator)
    if bind is not None:
        bind_host, bind_port = split_address(bind)
        flag, address = f"--coordinator-bind {bind}", _local(bind_host)
        if address is None:
            raise ValueError(f"{flag}: {bind_host} is no address of this machine: give one of its own, or {EVERYWHERE}")
        port = bind_port or port
    else:
        flag, address = f"--coordinator {coordinator}", _local(host)
        # Debian gives a machine's own name the address 127.0.1.1, where no other host would find it.
        only_here = address is not None and ipaddress.ip_address(address.split("%")[0]).is_loopback
        if address is None or (only_here and not _means_this_machine(host)):
            return None
    _refuse_taken(address, port or 0, flag)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def listens_everywhere(address: str | None) -> bool:
    """Whether an address that `bind_address` gave is all of this machine's."""
    return address is None or ipaddress.ip_address(split_address(address)[0].split("%")[0]).is_unspecified


def _local(host: str) -> str | None:
    """The first address of a host that is this machine's, as numbers; None where there is none."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.bind(address)
                return str(address[0])
        except OSError:
            continue
    return None


def _means_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _refuse_taken(address: str, port: int, flag: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        try:
            tried.bind((address, port))
        except OSError as error:
            raise ValueError(f"{flag}: port {port} of {address}: {error.strerror}: choose another port") from error
