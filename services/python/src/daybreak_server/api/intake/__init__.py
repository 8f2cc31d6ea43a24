"""From a submitted task to the task store.

* ``catalog``         the configured pools, each with the workload that validates its inputs
* ``normalization``   turns what a client may write in several ways into one form
* ``bulk_files``      checks the file that a task names
* ``submission``      makes a task for the store from the body of a request
* ``submit_batching`` sends concurrent submits to the store together
* ``bulkhead``        limits the number of concurrent calls to the store
"""
