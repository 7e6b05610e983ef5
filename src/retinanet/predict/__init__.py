"""Detection in files: images, folders, videos and cameras in; drawings and result files out."""
