"""One program at a time in a folder or on a file. Import from the modules here: `hold` loads neither Hydra nor torch."""
