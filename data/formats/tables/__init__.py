"""`csv`: a table with a row per picture."""
