"""A ProxyCommand: carries a connection to HOST PORT, to the device at so many bytes a second.

    relay.py HOST PORT BYTES_PER_S COUNTER

COUNTER is a file that holds how many bytes went to the device.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

PIECE_BYTES = 16 * 1024


def main(host: str, port: int, bytes_per_s: int, counter: Path) -> None:
    """Carry both directions until either ends."""
    with socket.create_connection((host, port)) as line:
        threading.Thread(target=_back, args=(line,), daemon=True).start()
        carried = 0
        counter.write_text("0")
        while piece := os.read(0, PIECE_BYTES):
            line.sendall(piece)
            carried += len(piece)
            counter.write_text(str(carried))
            time.sleep(len(piece) / bytes_per_s)
        line.shutdown(socket.SHUT_WR)
        time.sleep(5)  # for the last answers


def _back(line: socket.socket) -> None:
    while piece := line.recv(PIECE_BYTES):
        os.write(1, piece)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
