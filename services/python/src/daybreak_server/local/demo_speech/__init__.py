"""``daybreakd demo-speech``: translates speech while it is spoken, for one user and then for eight at once.

* ``demo``     what the demo shows, in order
* ``speaker``  a user who speaks recorded sentences at the speed of speech, and reads the translation
"""
