"""Judging trained models. Import from the modules here: worker processes load this package and should start quickly."""
