"""Keeps the brokers of one cluster, and ends them when nobody asks for them any more.

Started as the leader of a process group of its own; the brokers are in that group. One JSON object
a line is read from standard input, one is answered for each. The other end of standard input is
held by the test run alone: however that dies, SIGKILL included, the kernel closes the pipe, this
process reads end of file, kills every broker and removes their data.

After {"op": "detach"} the end of the pipe ends nothing: the cluster lives until somebody says
{"op": "shutdown"} to the socket named there.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Linux: a broker also dies if this process is killed itself."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        pass


class Supervisor:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.listener: socket.socket | None = None

    def answer(self, line: str) -> dict[str, object]:
        try:
            ask = json.loads(line)
            return {"ok": True, **getattr(self, "op_" + ask.pop("op"))(**ask)}
        except Exception as error:  # the asker reads it; this process must not end by it
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def op_start(self, node: int, argv: list[str], log: str) -> dict[str, object]:
        old = self.nodes.get(str(node))
        if old is not None and old.poll() is None:
            raise RuntimeError(f"broker {node} is running")
        with open(log, "ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                preexec_fn=die_with_parent,
            )
        self.nodes[str(node)] = child
        return {"pid": child.pid}

    def op_signal(self, node: int, name: str) -> dict[str, object]:
        child = self.nodes[str(node)]
        if child.poll() is not None:
            raise RuntimeError(f"broker {node} is not running (exit {child.returncode})")
        child.send_signal(getattr(signal, name))
        return {}

    def op_wait(self, node: int, seconds: float) -> dict[str, object]:
        try:
            return {"exit": self.nodes[str(node)].wait(seconds)}
        except subprocess.TimeoutExpired:
            return {"exit": None}

    def op_detach(self, path: str) -> dict[str, object]:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        return {}

    def op_shutdown(self) -> dict[str, object]:
        self.end()
        return {}

    def end(self) -> None:
        for child in self.nodes.values():
            child.kill()
        for child in self.nodes.values():
            child.wait()
        self.nodes.clear()
        if "OTTLA_KEEP" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)

    def serve(self, asks, answers) -> None:
        for line in asks:
            answers.write(json.dumps(self.answer(line)) + "\n")
            answers.flush()

    def run(self) -> None:
        try:
            self.serve(sys.stdin, sys.stdout)
        except (OSError, ValueError):
            pass  # the reader of the answers is gone: the same as the end of the asks
        while self.listener is not None and self.nodes:
            peer, _ = self.listener.accept()
            try:
                with peer, peer.makefile("rw") as stream:
                    self.serve(stream, stream)
            except (OSError, ValueError):
                pass
        self.end()
        # Whatever else a broker started is in our group.
        os.killpg(0, signal.SIGKILL)


Supervisor(sys.argv[1]).run()
