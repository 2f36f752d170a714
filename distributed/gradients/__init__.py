"""How the gradients of one step become those of all workers."""
