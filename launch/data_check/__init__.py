"""What check_data.py looks for, and what it does about it."""
