"""Environments: frames instead of vectors, and vector environments in one row format.

Nothing here imports JAX, so that a process which only steps environments starts quickly.
"""
