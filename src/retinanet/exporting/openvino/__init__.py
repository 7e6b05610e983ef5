"""OpenVINO models: written, quantised and run."""
