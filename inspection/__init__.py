"""Looking inside: gradient checks, tables and figures."""

from backhand.inspection.gradient_check import GradientReport, GradientRow, check_gradients
from backhand.inspection.history_plot import plot_history, plot_loss_and_accuracy, save_loss_curve
from backhand.inspection.layer_check import check_layer
from backhand.inspection.summary import Summary, SummaryRow, summary

__all__ = [
    "GradientReport",
    "GradientRow",
    "Summary",
    "SummaryRow",
    "check_gradients",
    "check_layer",
    "plot_history",
    "plot_loss_and_accuracy",
    "save_loss_curve",
    "summary",
]
