"""Exported detectors: ONNX, OpenVINO, torch.export and Triton, each compared with its model."""
