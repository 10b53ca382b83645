"""RESULTS.md and its two figures."""
