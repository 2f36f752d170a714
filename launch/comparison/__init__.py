"""What launch/compare.py is made of: runs are read, set side by side, drawn, and told as one page."""
