"""What a run leaves for people: logs, TensorBoard, curves and GIFs."""
