"""The server binary as a child process, for tests with stock clients.

`NATS_SERVER` names the binary. Every server gets a free port and a directory of its own and is gone after its test.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

import nats

LISTENING = re.compile(r"Listening for client connections on \S*:(\d+)")


class Server:
    def __init__(self, *arguments):
        self.directory = tempfile.mkdtemp(prefix="interop-")
        self.arguments = arguments
        self.port = -1
        self.process = None
        self.start()

    def start(self):
        command = [
            os.environ["NATS_SERVER"], "-a", "127.0.0.1", "-p", str(self.port),
            "-js", "-sd", os.path.join(self.directory, "store"), *self.arguments,
        ]
        self.log_path = os.path.join(self.directory, "log")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = LISTENING.search(line)
            if found:
                self.port = int(found.group(1))
            if line.rstrip().endswith("Server is ready"):
                break
        else:
            raise RuntimeError(f"the server ended with {self.process.wait()}")
        # What it logs from here on goes nowhere: a full pipe must never stop it.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def _end(self, number):
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.process.stderr.close()
        self.drain.wait(timeout=30)
        self.process = None
        return status

    def kill(self):
        return self._end(signal.SIGKILL)

    def stop(self):
        return self._end(signal.SIGTERM)

    def remove(self):
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.directory)


class WithServer(unittest.IsolatedAsyncioTestCase):
    """A test case with a server and one connected client."""

    arguments = ()

    async def asyncSetUp(self):
        self.server = Server(*self.arguments)
        self.addCleanup(self.server.remove)
        self.client = await self.connect()

    async def asyncTearDown(self):
        for client in self.clients:
            if not client.is_closed:
                await client.close()

    @property
    def clients(self):
        return self.__dict__.setdefault("_clients", [])

    async def connect(self, **options):
        async def quiet(_error):
            pass

        options.setdefault("error_cb", quiet)
        client = await nats.connect(self.server.url, **options)
        self.clients.append(client)
        return client
