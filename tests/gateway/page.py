"""The gateway's page in headless Chromium: what a person would see.

usage: page.py path/to/the/gateway
"""

import os
import re
import subprocess
import tempfile

from processes import Trial, curl


def text_of(html, identifier):
    found = re.search(rf'id="{identifier}"[^>]*>(.*?)</(?:dd|dl|small|tbody)>', html, re.DOTALL)
    assert found, f"no {identifier} in {html}"
    return re.sub(r"<[^>]+>", " ", found[1]).split()


def dom(url):
    """The page as it stands after four seconds of events."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}", "--timeout=4000", "--dump-dom", url,
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return said.stdout


with Trial("--latency-ms", 30) as trial:
    completions = f"{trial.gateway.url}/v1/chat/completions"
    message = {"model": "m", "messages": [{"role": "user", "content": "<b>hello</b>"}]}
    for number in range(3):
        for _ in range(2):
            status, _ = curl(completions, {**message, "idempotency_key": f"k{number}"})
            assert status == 200
    html = dom(trial.gateway.url)
    assert text_of(html, "link") == ["live"], text_of(html, "link")
    assert text_of(html, "asked") == ["6"], html
    assert text_of(html, "duplicates") == ["3"], html
    assert int(text_of(html, "p50_millis")[0]) >= 30, html
    states = " ".join(text_of(html, "states"))
    assert "completed 3" in states and "failed 0" in states, states
    recent = text_of(html, "recent")
    assert sum(word.startswith("rr_") for word in recent) == 3, recent
    assert recent.count("200") == 3, recent
    print(f"page: {states}; asked 6, duplicates saved 3")
