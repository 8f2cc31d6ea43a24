"""``daybreakd demo-speech``: translates speech while it is spoken, for one user and then for eight at once.

* ``demo`` has the parts of the demo, in order.
* ``progress`` shows what many users do at once.
* ``speaker`` is a user who sends recorded sentences in real time, and reads the translation.
"""
