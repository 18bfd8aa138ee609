"""The gateway's page in headless Chromium: what a person would see.

usage: page.py path/to/the/gateway
"""

import json
import os
import re
import subprocess
import tempfile
import urllib.request

import websocket
from processes import Trial, curl, eventually


class Browser:
    """Headless Chromium at a page, asked over its debugging protocol."""

    def __init__(self, url):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            "chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage",
            "--remote-debugging-port=0", f"--user-data-dir={self.profile.name}", url,
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"DevTools listening on ws://([^/]+)/", line):
                break
        else:
            raise AssertionError("chromium does not start")
        tabs = eventually(lambda: self.tabs(found[1]))
        self.socket = websocket.create_connection(tabs[0], suppress_origin=True)

    @staticmethod
    def tabs(address):
        with urllib.request.urlopen(f"http://{address}/json") as answer:
            tabs = json.load(answer)
        return [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]

    def text(self, selector):
        """The words that stand in an element."""
        expression = f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"
        call = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression}}
        self.socket.send(json.dumps(call))
        while (answer := json.loads(self.socket.recv())).get("id") != 1:
            pass
        return answer["result"]["result"]["value"].split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.communicate(timeout=30)
        self.profile.cleanup()


def message(key, **more):
    content = "<b>hello</b>"
    return {"model": "m", "messages": [{"role": "user", "content": content}], "idempotency_key": key, **more}


with Trial("--latency-ms", 1500) as trial:
    completions = f"{trial.gateway.url}/v1/chat/completions"
    with Browser(trial.gateway.url) as browser:
        eventually(lambda: browser.text("#link") == ["live"])
        eventually(lambda: browser.text("#asked") == ["0"])
        # What happens while someone looks is seen without a reload.
        for key in ["a", "b", "b"]:
            assert curl(completions, message(key, wait=False))[0] == 200
        eventually(lambda: browser.text("#asked") == ["3"])
        eventually(lambda: "in progress 2" in " ".join(browser.text("#states")))
        for key in ["a", "b"]:
            assert curl(completions, message(key))[0] == 200
        eventually(lambda: "completed 2" in " ".join(browser.text("#states")))
        eventually(lambda: browser.text("#duplicates") == ["3"])
        assert int(browser.text("#p50_millis")[0]) >= 1500
        recent = browser.text("#recent")
        assert sum(word.startswith("rr_") for word in recent) == 2, recent
        assert recent.count("200") == 2, recent
        trial.kill()
        eventually(lambda: browser.text("#link") == ["not", "connected"])
        trial.start()
        eventually(lambda: browser.text("#link") == ["live"])
        eventually(lambda: "completed 2" in " ".join(browser.text("#states")))
    print("page: in progress, completed and duplicates seen live; found again after a kill")
