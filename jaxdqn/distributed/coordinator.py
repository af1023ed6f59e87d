"""Where process 0 listens for the others: on the coordinator's own address, or on all of this machine's."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import socket
from typing import Any, NamedTuple

import psutil

from jaxdqn.distributed.options import DistributedOptions, split_address

EVERYWHERE = "0.0.0.0"


class BindAddress(NamedTuple):
    """Where process 0 listens.

    Attributes:
        address: HOST:PORT; None is JAX's own choice, all addresses at the coordinator's port.
        note: What the user is to be told; None where it is what was asked for.
    """

    address: str | None
    note: str | None


def resolve_cluster(options: DistributedOptions) -> DistributedOptions:
    """The flags, and what the cluster tells where they leave something open.

    Raises:
        ValueError: If `--coordinator-bind` is given and nothing tells who the coordinator is.
    """
    options = dataclasses.replace(options, coordinator=options.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"))
    given = (options.coordinator, options.num_processes, options.process_id)
    if None in given:
        with contextlib.suppress(Exception):  # `initialize` asks again, and says what is wrong
            # JAX asks the cluster within `initialize`, which tells the answer when it listens already.
            from jax._src.clusters import ClusterEnv

            found: Any = ClusterEnv.auto_detect_unset_distributed_params(*given, None, None, options.connect_timeout)
            coordinator, count, index, *_ = found
            options = dataclasses.replace(options, coordinator=coordinator, num_processes=count, process_id=index)
    if options.coordinator_bind is not None and None in (options.coordinator, options.process_id):
        raise ValueError(
            f"--coordinator-bind {options.coordinator_bind}: nothing tells which process is the coordinator: "
            "give --coordinator HOST:PORT --num-processes N --process-id I"
        )
    return options


def choose_bind_address(options: DistributedOptions) -> BindAddress:
    """Where this process listens, which is process 0.

    Args:
        options: As `resolve_cluster` gives it.

    Returns:
        The address of `--coordinator-bind` (`JAX_COORDINATOR_BIND_ADDRESS`) where that is given, else the coordinator's
        if it is this machine's and nobody else's, or else all.

    Raises:
        ValueError: If an address cannot be read or is not this machine's, its port is taken, or this process would not
            reach itself there.
    """
    if options.coordinator is None:
        return BindAddress(None, None)  # `initialize` says what is missing
    host, port = split_address(options.coordinator)
    if not host or port is None:
        raise ValueError(f"coordinator {options.coordinator!r} must be HOST:PORT, as in 10.0.0.1:12345")
    known, own = _addresses(host), _own_addresses()
    flag, bind = "--coordinator-bind", options.coordinator_bind
    if bind is None:
        flag, bind = "JAX_COORDINATOR_BIND_ADDRESS", os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    if bind is not None:
        bind_host, bind_port = split_address(bind)
        mine = next((address for address in _addresses(bind_host) if _is_own(address, own)), None)
        if mine is None:
            raise ValueError(f"{flag} {bind}: this is no address of this machine: give one of its own, or {EVERYWHERE}")
        here = [address for address in known if _is_own(address, own)]
        bind_port = bind_port or port
        if here and not mine.is_unspecified and (mine not in here or bind_port != port):
            raise ValueError(
                f"{flag} {bind}: process 0 itself looks for {options.coordinator}, which is {here[0]} here: "
                f"give --coordinator {_join(mine, bind_port)}"
            )
        _check_port_free(mine, bind_port, f"{flag} {bind}")
        return BindAddress(_join(mine, bind_port), None)
    literal = _is_literal(host)
    # Debian gives a machine's own name the address 127.0.1.1, where no other host would find it.
    alone = len(known) == 1 and _is_own(known[0], own) and not (known[0].is_loopback and not literal)
    if not (alone or host == "localhost"):
        _check_port_free(ipaddress.ip_address(EVERYWHERE), port, f"coordinator {options.coordinator}")
        said = f"process 0 listens on all interfaces, as {options.coordinator} names no address of this machine alone"
        return BindAddress(None, f"{said}: --coordinator-bind HOST chooses one")
    address = known[0]
    _check_port_free(address, port, f"coordinator {options.coordinator}")
    if address.is_unspecified:
        return BindAddress(
            _join(address, port), "process 0 listens on all interfaces: --coordinator-bind HOST chooses one"
        )
    said = (
        f"process 0 listens on {address} alone, for which {host} stands here: --coordinator-bind {EVERYWHERE} for all"
    )
    return BindAddress(_join(address, port), None if literal or host == "localhost" else said)


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(host: str) -> list[IPAddress]:
    """What a host's name stands for; nothing where that is not known."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ipaddress.ip_address(address[0]) for *_, address in found))


def _own_addresses() -> set[str]:
    found = [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return {address.split("%")[0] for address in found}


def _is_own(address: IPAddress, own: set[str]) -> bool:
    return address.is_loopback or address.is_unspecified or str(address).split("%")[0] in own


def _is_literal(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _join(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _check_port_free(address: IPAddress, port: int, said: str) -> None:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        try:
            tried.bind((str(address), port))
        except OSError as error:
            raise ValueError(f"{said}: port {port} of {address}: {error.strerror}: choose another port") from error
