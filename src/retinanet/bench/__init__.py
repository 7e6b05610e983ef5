"""Speed of this machine: side by side with torchvision, and models side by side."""
