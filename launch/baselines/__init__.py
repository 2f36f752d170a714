"""The programs that Lockstep is measured against: each a script as people write it, for the same job."""
