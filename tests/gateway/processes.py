"""The processes of a trial: a model server that lives on, and gateways that come and go."""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAM = sys.argv[1]


class Process:
    """The example as a process; `url` is what it says it listens on."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert " on http://" in line, f"{arguments} said {line!r}"
        self.url = line.split(" on ")[1].split(",")[0].strip()

    def end(self, how=signal.SIGTERM):
        """Ends it, and says what it said since it listened and how it ended."""
        self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=60)
        return said, self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


class Trial:
    """A model server, and a gateway in front of it that can be killed and started again."""

    def __init__(self, *model_arguments):
        self.home = tempfile.TemporaryDirectory()
        self.model = Process("--model-server", "--port", 0, *model_arguments)
        self.gateway = None
        self.start()

    def start(self, *arguments):
        port = self.gateway.url.rsplit(":", 1)[1] if self.gateway else 0
        self.gateway = Process(
            "--port", port, "--upstream", self.model.url, "--dir", f"{self.home.name}/store",
            *arguments,
        )

    def kill(self):
        self.gateway.end(signal.SIGKILL)

    def calls(self):
        """For each request id: how often the model was called, and how often it generated."""
        with urllib.request.urlopen(f"{self.model.url}/calls") as answer:
            return json.load(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.gateway, self.model):
            process.__exit__()
        self.home.cleanup()


def curl(url, body=None, key="sk-one", headers=()):
    """Status and body of a request by curl."""
    command = ["curl", "--silent", "--write-out", "\n%{http_code}", url]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    for header in headers:
        command += ["--header", header]
    if body is not None:
        command += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    text, status = said.rsplit("\n", 1)
    return int(status), json.loads(text)


def eventually(what, within=30):
    """Waits until `what()` is true, and gives it back."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what.__doc__ or what}")
