"""The two small programs around rclone, each run as `python -I -S s3_child.py ...`: no site packages, quick to start.

    launch PARENT FD COMMAND...   become COMMAND, listening on FD, and die with the process PARENT
    auth SOCKET                   rclone's auth proxy: pass the request on stdin to SOCKET, its answer to stdout

Imports nothing of ours and nothing slow.
"""

import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
FIRST_PASSED_DESCRIPTOR = 3  # sd_listen_fds(3), which rclone follows


def launch(parent: int, descriptor: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)
    if descriptor != FIRST_PASSED_DESCRIPTOR:
        os.dup2(descriptor, FIRST_PASSED_DESCRIPTOR)
    os.set_inheritable(FIRST_PASSED_DESCRIPTOR, True)
    environment = {"PATH": os.defpath, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.execve(command[0], command, environment)  # noqa: S606


def auth(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(sys.stdin.buffer.read())
        server.shutdown(socket.SHUT_WR)
        with server.makefile("rb") as answer:
            document = answer.read()
    if not document:
        sys.exit("unknown access key")
    sys.stdout.buffer.write(document)


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        launch(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        auth(sys.argv[2])
