"""Registers the models of the chart's values. Helm runs this script after each install and upgrade.

If a model is already registered with the same values, the script leaves it alone. If it is registered with different
values, the script still registers the remaining models, and then fails, because it never deletes a model.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["DAYBREAK_URL"] + "/v1/models/"
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer " + os.environ["DAYBREAK_WORKERS__TOKEN"],
}
PAUSE_S = 2.0


def call(path, body=None):
    """Repeat a request until a gateway answers it without a 5xx status.

    Returns the status, and the answer's JSON or an error's text.
    """
    data = None if body is None else json.dumps(body).encode()
    while True:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(URL + path, data, HEADERS), timeout=30
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            if exc.code < 500:
                return exc.code, exc.read().decode(errors="replace")
            print("the gateway answers", exc.code, flush=True)
        except OSError as exc:
            print("waiting for the gateway:", exc, flush=True)
        time.sleep(PAUSE_S)


def differences(model, found):
    """The values of ``model`` that the registered model ``found`` does not have."""
    beside = ("max_model_len", "gpu_memory_utilization", "tensor_parallel_size", "dtype", "quantization")
    wanted = {
        "source" if name == "model_name" else name: value for name, value in model.items() if name != "alias"
    }
    args = {**wanted.pop("args", {}), **{name: wanted.pop(name) for name in beside if name in wanted}}
    has = {**found, **(found.get("args") or {})}
    return {name: value for name, value in {**wanted, **args}.items() if has.get(name) != value}


failed = False
for model in json.loads(os.environ["MODELS"]):
    status, answer = call("register", model)
    if status == 409:
        status, answer = call(model["alias"])
        if status != 200:
            print(model["alias"], "is registered already, but cannot be read:", status, answer, flush=True)
        elif answer["state"] == "draining":
            print(model["alias"], "has been deleted, and finishes its requests; run this again", flush=True)
        elif not (different := differences(model, answer)):
            print(model["alias"], "is registered already", flush=True)
            continue
        else:
            print(model["alias"], "is registered already, but without", different, flush=True)
            print("delete it first: daybreak models delete", model["alias"], flush=True)
        failed = True
    elif status >= 300:
        print(model["alias"], "is refused:", status, answer, flush=True)
        failed = True
    else:
        print(model["alias"], "is registered", flush=True)
sys.exit(failed)
