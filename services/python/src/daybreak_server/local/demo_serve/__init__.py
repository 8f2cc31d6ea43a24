"""``daybreakd demo-serve``: serves a small chat model with two workers.

At first, no worker runs the model. The demo installs and starts everything that it needs.

* ``demo``   what the demo shows, in order
* ``fleet``  its processes: a gateway beside an embedded Valkey, and workers
* ``chat``   the client: questions, answers, and the states of a model
"""
