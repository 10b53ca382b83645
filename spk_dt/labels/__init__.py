"""The reference method: its calculator, labels of geometries, and whether it is the method of the data.

Import from the modules here: worker processes load this package and should start quickly.
"""
