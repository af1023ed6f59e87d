"""The address on which process 0 listens for the others: the coordinator's own, or all addresses of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import socket
from typing import Any, NamedTuple

import psutil

from jaxdqn.distributed.options import DistributedOptions, split_address

ALL_INTERFACES = "0.0.0.0"


class BindAddress(NamedTuple):
    """The address on which process 0 listens.

    Attributes:
        address: HOST:PORT; None leaves it to JAX, which listens on all addresses at the coordinator's port.
        note: A message for the user; None if the address is the requested one.
    """

    address: str | None
    note: str | None


def resolve_cluster(options: DistributedOptions) -> DistributedOptions:
    """Return the options with the unset ones filled in from the cluster, if JAX knows it.

    Raises:
        ValueError: If `--coordinator-bind` is given and the coordinator cannot be determined.
    """
    options = dataclasses.replace(options, coordinator=options.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"))
    given = (options.coordinator, options.num_processes, options.process_id)
    if None in given:
        with contextlib.suppress(Exception):  # `initialize` asks again, and reports the error
            # JAX itself asks the cluster within `jax.distributed.initialize`, but its answer is needed before that.
            from jax._src.clusters import ClusterEnv

            found: Any = ClusterEnv.auto_detect_unset_distributed_params(*given, None, None, options.connect_timeout)
            coordinator, count, index, *_ = found
            options = dataclasses.replace(options, coordinator=coordinator, num_processes=count, process_id=index)
    if options.coordinator_bind is not None and None in (options.coordinator, options.process_id):
        raise ValueError(
            f"--coordinator-bind {options.coordinator_bind}: it is unknown which process is the coordinator: "
            "give --coordinator HOST:PORT --num-processes N --process-id I"
        )
    return options


def choose_bind_address(options: DistributedOptions) -> BindAddress:
    """Return the address on which this process, process 0, listens.

    Args:
        options: What `resolve_cluster` returned.

    Returns:
        The address of `--coordinator-bind` (or `JAX_COORDINATOR_BIND_ADDRESS`) if given. Otherwise the coordinator's
        address if it is an address of this machine only, and all addresses if it is not.

    Raises:
        ValueError: If an address is invalid or not one of this machine, its port is taken, or process 0 could not reach
            itself there.
    """
    if options.coordinator is None:
        return BindAddress(None, None)  # `initialize` reports what is missing
    host, port = split_address(options.coordinator)
    if not host or port is None:
        raise ValueError(f"coordinator {options.coordinator!r} must be HOST:PORT, as in 10.0.0.1:12345")
    known, own = _addresses(host), _own_addresses()
    flag, bind = "--coordinator-bind", options.coordinator_bind
    if bind is None:
        flag, bind = "JAX_COORDINATOR_BIND_ADDRESS", os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    if bind is not None:
        bind_host, bind_port = split_address(bind)
        bind_address = next((address for address in _addresses(bind_host) if _is_own(address, own)), None)
        if bind_address is None:
            raise ValueError(f"{flag} {bind} is not an address of this machine: give one that is, or {ALL_INTERFACES}")
        local = [address for address in known if _is_own(address, own)]
        bind_port = bind_port or port
        if local and not bind_address.is_unspecified and (bind_address not in local or bind_port != port):
            raise ValueError(
                f"{flag} {bind}: process 0 itself connects to {options.coordinator}, which is {local[0]} here: "
                f"give --coordinator {_join(bind_address, bind_port)}"
            )
        _check_port_free(bind_address, bind_port, f"{flag} {bind}")
        return BindAddress(_join(bind_address, bind_port), None)
    literal = _is_literal(host)
    # Debian gives a machine's own name the address 127.0.1.1, which other hosts cannot reach.
    is_unambiguous = len(known) == 1 and _is_own(known[0], own) and not (known[0].is_loopback and not literal)
    if not (is_unambiguous or host == "localhost"):
        _check_port_free(ipaddress.ip_address(ALL_INTERFACES), port, f"coordinator {options.coordinator}")
        note = f"process 0 listens on all interfaces, as {options.coordinator} is not one address of this machine only"
        return BindAddress(None, f"{note}: choose one with --coordinator-bind HOST")
    address = known[0]
    _check_port_free(address, port, f"coordinator {options.coordinator}")
    if address.is_unspecified:
        return BindAddress(
            _join(address, port), "process 0 listens on all interfaces: choose one with --coordinator-bind HOST"
        )
    note = f"process 0 listens only on {address}, the address of {host}: --coordinator-bind {ALL_INTERFACES} for all"
    return BindAddress(_join(address, port), None if literal or host == "localhost" else note)


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(host: str) -> list[IPAddress]:
    """Return the addresses of a host name; empty if it is unknown."""
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


def _check_port_free(address: IPAddress, port: int, setting: str) -> None:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed counts as free
        try:
            probe.bind((str(address), port))
        except OSError as error:
            raise ValueError(f"{setting}: port {port} of {address}: {error.strerror}: choose another port") from error
