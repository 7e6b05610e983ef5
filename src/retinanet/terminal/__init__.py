"""What a run and a command print: text for people, JSON for programs, and live progress."""
