"""ONNX files: written, read and run by ONNX Runtime."""
