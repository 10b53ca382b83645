"""One program at a time in a folder or on a file, and what a program says that fails.

Import from the modules here: `hold` loads neither Hydra nor torch.
"""
