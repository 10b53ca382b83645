"""Potentials as one file that simulation engines run (metatomic); needs the extra ``export``.

`spk_dt.export.write.export_model` writes it. Nothing is imported here, since metatomic may not be installed.
"""
