"""Looking inside: gradient checks, tables and figures."""

from backhand.inspection.gradient_check import GradientReport, GradientRow, check_gradients, check_layer

__all__ = ["GradientReport", "GradientRow", "check_gradients", "check_layer"]
