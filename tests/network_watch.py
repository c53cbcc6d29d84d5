"""Run a command in a network of its own, and report which names and hosts it reaches for.

Usage: unshare --net --mount --pid --fork python network_watch.py REPORT COMMAND...

Each name has the address ANSWER and each address leads back to this machine, so that a program
which looks a name up goes on to connect. A packet socket sees every packet, native code's as well.
"""

import ipaddress
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

ANSWER = "192.0.2.53"  # an address that RFC 5737 reserves for documentation
_ALL_PACKETS = 3
_FILES = {"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/etc/nsswitch.conf": "hosts: files dns\n"}


def look_alike() -> None:
    """Replace the network of this namespace; needs root in it."""
    for command in ("link set lo up", "route add local default dev lo src 127.0.0.1"):
        subprocess.run(["ip", *command.split()], check=True)
    for target, content in _FILES.items():
        file = Path(tempfile.mkdtemp()) / "file"
        file.write_text(content)
        if Path(target).exists():
            subprocess.run(["mount", "--bind", str(file), target], check=True)


def answer(server: socket.socket, looked_up: Callable[[str], None]) -> None:
    """Answer questions for IPv4 addresses; there are no others."""
    while True:
        question, client = server.recvfrom(4096)
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode("latin-1"))
            at += size + 1
        looked_up(".".join(labels))
        asked = question[12 : at + 5]
        found = asked[-4:-2] == b"\x00\x01"
        head = question[:2] + b"\x81\x80\x00\x01" + bytes([0, found]) + bytes(4)
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04" + socket.inet_aton(ANSWER)
        server.sendto(head + asked + (record if found else b""), client)


def sniff(packets: socket.socket, reached: Callable[[str], None]) -> None:
    """Report the destination of every packet that would have left this machine."""
    while True:
        packet = packets.recv(65536)
        end = 20 if packet[0] >> 4 == 4 else 40
        to = ipaddress.ip_address(packet[end - (4 if end == 20 else 16) : end])
        if not to.is_loopback:
            reached(f"{to}:{int.from_bytes(packet[end + 2 : end + 4], 'big')}")


def main(report: Path, command: list[str]) -> int:
    """Run the command; write what was seen as JSON."""
    look_alike()
    seen: dict[str, set[str]] = {"looked_up": set(), "reached": set()}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PACKETS))
    packets.bind(("lo", _ALL_PACKETS))
    for watch, sink in ((answer, seen["looked_up"].add), (sniff, seen["reached"].add)):
        source = server if watch is answer else packets
        threading.Thread(target=watch, args=(source, sink), daemon=True).start()
    code = subprocess.run(command, check=False).returncode
    report.write_text(json.dumps({name: sorted(found) for name, found in seen.items()}))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
