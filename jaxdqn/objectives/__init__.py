"""Objectives: what an update minimises, for one sample; the learner applies `jax.vmap`."""
