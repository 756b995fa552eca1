"""New images: export a network, predict with ONNX Runtime, explain a prediction."""
