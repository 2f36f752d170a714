"""How many workers act as one."""
