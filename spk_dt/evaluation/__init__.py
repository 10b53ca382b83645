from spk_dt.evaluation.training_curve import TrainingCurve, plot_training_curve, read_training_curve

__all__ = ["TrainingCurve", "plot_training_curve", "read_training_curve"]
