"""``daybreakd demo-serve``: a small chat model on two workers, from zero, with everything that it needs.

* ``demo``   what the demo shows, in order
* ``fleet``  its processes: a gateway beside an embedded Valkey, and workers
* ``chat``   the client: questions, answers, and the states of a model
"""
