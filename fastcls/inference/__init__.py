"""Answers for new images, by ONNX alone."""
