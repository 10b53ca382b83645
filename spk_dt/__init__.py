"""Dynamic Training of machine-learning interatomic potentials, a plugin to SchNetPack."""
