"""Real clients against the gateway: one upstream call an operation, whatever they and it go through.

usage: clients.py path/to/the/gateway
"""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import openai
from processes import Trial, curl, eventually


def client(trial, key="sk-one", **options):
    return openai.OpenAI(base_url=f"{trial.gateway.url}/v1", api_key=key, **options)


def ask(client, prompt, **more):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="m", messages=messages, **more)


def body(prompt, **more):
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


def counted(trial):
    return sorted((key["calls"], key["generations"]) for key in trial.calls().values())


def duplicates_at_once_are_one_upstream_call():
    with Trial("--latency-ms", 500) as trial, ThreadPoolExecutor(16) as threads:
        sdk = client(trial)
        keyed = {"extra_body": {"idempotency_key": "k"}}
        asked = [threads.submit(ask, sdk, "hello", **keyed) for _ in range(16)]
        answers = {one.result().model_dump_json() for one in asked}
        assert len(answers) == 1, answers
        assert counted(trial) == [(1, 1)], trial.calls()
        # A header names the same operation as the body does, for this project alone.
        again = ask(sdk, "hello", extra_headers={"Idempotency-Key": "k"})
        assert again.model_dump_json() in answers
        other = ask(client(trial, "sk-two"), "hello", **keyed)
        assert other.model_dump_json() not in answers
        assert counted(trial) == [(1, 1), (1, 1)], trial.calls()


def a_client_that_times_out_and_retries_by_itself_pays_once():
    with Trial("--latency-ms", 2000) as trial:
        sdk = client(trial, timeout=0.6, max_retries=8)
        answer = ask(sdk, "hello", extra_body={"idempotency_key": "k"})
        assert answer.choices[0].message.content.startswith("1: ")
        assert counted(trial) == [(1, 1)], trial.calls()


def requests_without_a_key_are_operations_of_their_own():
    with Trial("--latency-ms", 1) as trial:
        sdk = client(trial)
        assert ask(sdk, "hello").id != ask(sdk, "hello").id
        assert counted(trial) == [(1, 1), (1, 1)], trial.calls()


def upstream_errors_are_tried_again_and_then_final():
    with Trial("--latency-ms", 1, "--fail-every", 2) as trial:
        sdk = client(trial, max_retries=0)
        for key in ["a", "b", "c"]:
            ask(sdk, "hello", extra_body={"idempotency_key": key})
        assert counted(trial) == [(1, 1), (2, 1), (2, 1)], trial.calls()
    with Trial("--fail-every", 1) as trial:
        sdk = client(trial, max_retries=3)
        for _ in range(2):
            try:
                ask(sdk, "hello", extra_body={"idempotency_key": "k"})
                raise AssertionError("it is not answered")
            except openai.InternalServerError as error:
                assert error.code == "upstream", error
        # The second was answered from the store, and the SDK was told not to go on.
        assert counted(trial) == [(4, 0)], trial.calls()


def a_request_that_does_not_wait_is_found_by_its_id_and_by_its_project_alone():
    with Trial("--latency-ms", 700) as trial:
        completions = f"{trial.gateway.url}/v1/chat/completions"
        status, answer = curl(completions, body("hello", idempotency_key="k", wait=False))
        assert (status, answer["object"]) == (200, "chat.completion.async"), answer
        assert answer["id"].startswith("rr_"), answer
        request = f"{trial.gateway.url}{answer['url']}"
        status, seen = curl(request)
        assert (status, seen["status"], seen["result"]) == (200, "in_progress", None), seen
        done = eventually(lambda: (it := curl(request)[1])["is_final"] and it)
        assert (done["status"], done["attempts"], done["upstream_calls"]) == ("completed", 1, 1), done
        assert curl(completions, body("hello", idempotency_key="k")) == (200, done["result"])
        assert curl(request, key="sk-two")[0] == 404
        assert curl(request, key=None)[0] == 401
        assert curl(f"{trial.gateway.url}/v1/requests/rr_nonsense")[0] == 404
        status, answer = curl(completions, body("other", idempotency_key="k"))
        assert (status, answer["error"]["code"]) == (422, "key_reused"), answer
        assert counted(trial) == [(1, 1)], trial.calls()


def bad_requests_are_refused():
    with Trial() as trial:
        completions = f"{trial.gateway.url}/v1/chat/completions"
        for wrong in [
            body("x", stream=True),
            body("x", idempotency_key=7),
            body("x", wait="soon"),
            body("x", wait=-1),
            ["x"],
        ]:
            assert curl(completions, wrong)[0] == 400, wrong
        both = curl(completions, body("x", idempotency_key="a"), headers=["Idempotency-Key: b"])
        assert both[0] == 400, both
        assert curl(completions, body("x"), key=None)[0] == 401
        assert trial.calls() == {}


def clients_of_a_gateway_that_is_killed_are_answered_and_pay_once():
    with Trial("--latency-ms", 1500) as trial, ThreadPoolExecutor(24) as threads:
        sdk = client(trial, max_retries=12)
        keyed = [{"extra_body": {"idempotency_key": f"k{n}"}} for n in range(24)]
        asked = [threads.submit(ask, sdk, f"{n}", **key) for n, key in enumerate(keyed)]
        eventually(lambda: len(trial.calls()) >= 12)
        trial.kill()
        before = trial.calls()
        trial.start()
        answers = [one.result() for one in asked]
        assert all(it.choices[0].message.content.startswith("1: ") for it in answers)
        assert len({it.id for it in answers}) == 24
        calls = trial.calls()
        assert len(calls) == 24, calls
        assert all(key["generations"] == 1 for key in calls.values()), calls
        assert sum(key["calls"] for key in calls.values()) > 24, "nothing was interrupted"
        print(f"    killed with {len(before)} of 24 upstream; each generated once")


def at_most_once_never_calls_again_what_may_have_been_sent():
    with Trial("--latency-ms", 1500) as trial, ThreadPoolExecutor(24) as threads:
        sdk = client(trial, max_retries=12)

        def outcome(n):
            try:
                ask(sdk, f"{n}", extra_body={"idempotency_key": f"k{n}"})
                return "completed"
            except openai.InternalServerError as error:
                return error.code

        asked = [threads.submit(outcome, n) for n in range(24)]
        eventually(lambda: len(trial.calls()) >= 12)
        trial.kill()
        trial.start("--at-most-once")
        outcomes = [one.result() for one in asked]
        calls = trial.calls()
        assert set(outcomes) <= {"completed", "interrupted"}, outcomes
        assert "interrupted" in outcomes, outcomes
        assert all(key["calls"] == 1 for key in calls.values()), calls
        print(f"    {outcomes.count('interrupted')} of 24 interrupted; no second call")


def interrupted_requests_are_resumed_without_their_clients():
    with Trial("--latency-ms", 1000) as trial:
        completions = f"{trial.gateway.url}/v1/chat/completions"
        short = [body(f"{n}", idempotency_key=f"k{n}", wait=False) for n in range(5)]
        long = body("long " * 2000, idempotency_key="long", wait=False)
        ids = [curl(completions, one)[1]["id"] for one in [*short, long]]
        eventually(lambda: len(trial.calls()) == 6)
        trial.kill()
        trial.start()
        requests = [f"{trial.gateway.url}/v1/requests/{one}" for one in ids]
        for request in requests[:5]:
            done = eventually(lambda: (it := curl(request)[1])["is_final"] and it)
            assert (done["status"], done["attempts"]) == ("completed", 2), done
        # Its body was too long for its record: its client's next try resumes it.
        assert curl(requests[5])[1]["status"] == "interrupted"
        status, answer = curl(completions, {**long, "wait": True})
        assert (status, answer["object"]) == (200, "chat.completion"), answer
        assert curl(requests[5])[1]["attempts"] == 2
        assert counted(trial) == [(2, 1)] * 6, trial.calls()


def a_gateway_that_is_told_to_stop_finishes_its_work():
    with Trial("--latency-ms", 1000) as trial, ThreadPoolExecutor(1) as threads:
        completions = f"{trial.gateway.url}/v1/chat/completions"
        waiting = threads.submit(curl, completions, body("a", idempotency_key="a"))
        left = curl(completions, body("b", idempotency_key="b", wait=False))[1]
        eventually(lambda: len(trial.calls()) == 2)
        said, code = trial.gateway.end(signal.SIGTERM)
        assert (code, said.splitlines()[-1]) == (0, "stopped"), (code, said)
        assert waiting.result()[0] == 200
        trial.start()
        seen = curl(f"{trial.gateway.url}/v1/requests/{left['id']}")[1]
        assert (seen["status"], seen["attempts"]) == ("completed", 1), seen
        assert counted(trial) == [(1, 1)] * 2, trial.calls()


TRIALS = [
    duplicates_at_once_are_one_upstream_call,
    a_client_that_times_out_and_retries_by_itself_pays_once,
    requests_without_a_key_are_operations_of_their_own,
    upstream_errors_are_tried_again_and_then_final,
    a_request_that_does_not_wait_is_found_by_its_id_and_by_its_project_alone,
    bad_requests_are_refused,
    clients_of_a_gateway_that_is_killed_are_answered_and_pay_once,
    at_most_once_never_calls_again_what_may_have_been_sent,
    interrupted_requests_are_resumed_without_their_clients,
    a_gateway_that_is_told_to_stop_finishes_its_work,
]

for trial in TRIALS:
    began = time.monotonic()
    trial()
    print(f"ok {time.monotonic() - began:5.1f} s  {trial.__name__}", flush=True)
print(f"openai {openai.__version__}: {len(TRIALS)} trials passed")
