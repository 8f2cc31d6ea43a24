"""Run by `helm test`: follows a task from its submission to its end, as any client would."""

import sys

from daybreak import Client

with Client() as client:
    for pool in client.pools():
        print("pool", pool.name, "workload", pool.workload, "wake", pool.wake.phase, flush=True)
    for pool in sys.argv[1:]:
        task = client.submit(pool, {"message": "helm test", "steps": 3})
        print("submitted", task.id, flush=True)
        for event in client.events(task):
            print(event.type, dict(event.data), flush=True)
        print("ended:", client.wait(task).state, flush=True)
