"""Keras' layers whose result would depend on who computes it, made so that it does not."""
