"""What torchrun tells the processes that it starts."""

import os
import socket


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def become_rank(rank: int, ranks: int, port: int) -> None:
    """Let this process be one of so many on this machine; a single one stays as it is."""
    if ranks == 1:
        return
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {name: str(value) for name, value in (address | place).items()}
