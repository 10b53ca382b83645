"""Certificates: how long simulations of a model stay right, judged by the reference method, with confidence bounds.

`certify` is the whole; `simulations` runs long simulations piece by piece, `criteria` says what is wrong, `verdict` finds
with few labels where it begins, and `survival` is the statistics.
"""
