"""What people see of a run: on the console, in TensorBoard, in files."""
