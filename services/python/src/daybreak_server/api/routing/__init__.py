"""Serving pools: chooses a group for each request, holds requests while none is free, and passes answers on.

A request that arrives at zero groups takes this way: ``proxy`` asks ``pool_router`` for a slot, which puts the request
into the ``waiting_line``. That changes the demand, which ``demand`` publishes with the script ``publish_demand``. From
it the store computes the groups wanted, and KEDA or the supervisor starts one. When the group is in the store's view of
the pool, ``pool_router`` gives the request a slot.
"""
