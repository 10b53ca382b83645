"""Models as files that run no code when they are loaded, and those of SchNetPack, which do."""

from spk_dt.models.facts import Facts
from spk_dt.models.file import is_plain, read_facts, save_model
from spk_dt.models.load import already_told, load_model, own_file

__all__ = ["Facts", "already_told", "is_plain", "load_model", "own_file", "read_facts", "save_model"]
