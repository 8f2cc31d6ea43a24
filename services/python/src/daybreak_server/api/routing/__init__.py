"""Serving pools: this package chooses a group for each request, holds requests while no group is free, and passes
answers on. The models of workers use the same parts, with workers in the place of groups.

A request that arrives while its pool has no group takes this path: the module ``proxy`` asks ``pool_router`` for a
slot, and ``pool_router`` puts the request into the ``waiting_line``. This changes the demand, and the module ``demand``
publishes the new demand with the script ``publish_demand``. From the demand, the store computes how many groups are
wanted, and KEDA scales the pool to this number. (On one machine the groups run all the time.) When the group is in the
store's view of the pool, ``pool_router`` gives the request a slot.
"""
