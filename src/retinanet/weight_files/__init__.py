"""Weight files of any project as plain tensors and values, read without executing anything in them."""
