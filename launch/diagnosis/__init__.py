"""What launch/doctor.py looks at, measures and judges."""
