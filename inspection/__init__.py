"""Looking inside: gradient checks, tables and figures."""

from backhand.inspection.circuit import Circuit
from backhand.inspection.circuit_plot import plot_circuit
from backhand.inspection.decision_boundary import plot_decision_boundary
from backhand.inspection.distributions import plot_distributions, plot_update_ratio
from backhand.inspection.gradient_check import GradientReport, GradientRow, check_gradients
from backhand.inspection.hessian import Hessian, LossByInput, LossByParameters, hessian, hvp
from backhand.inspection.history_plot import plot_history, plot_loss_and_accuracy, save_loss_curve
from backhand.inspection.images import Saliency, image_grid, plot_image_grid, plot_saliency, saliency
from backhand.inspection.jacobian import Jacobian, jacobian, jvp, vjp
from backhand.inspection.layer_check import check_layer
from backhand.inspection.live_plot import LivePlot
from backhand.inspection.matrix_plots import (
    confusion_matrix,
    plot_attention,
    plot_confusion_matrix,
    plot_jacobian,
    plot_matrix,
)
from backhand.inspection.nonfinite import NonFinite, find_nonfinite
from backhand.inspection.summary import Summary, SummaryRow, summary
from backhand.inspection.trace import Call, Learned, Numbers, Trace, record

__all__ = [
    "Call",
    "Circuit",
    "GradientReport",
    "GradientRow",
    "Hessian",
    "Jacobian",
    "Learned",
    "LivePlot",
    "LossByInput",
    "LossByParameters",
    "NonFinite",
    "Numbers",
    "Saliency",
    "Summary",
    "SummaryRow",
    "Trace",
    "check_gradients",
    "check_layer",
    "confusion_matrix",
    "find_nonfinite",
    "hessian",
    "hvp",
    "image_grid",
    "jacobian",
    "jvp",
    "plot_attention",
    "plot_circuit",
    "plot_confusion_matrix",
    "plot_decision_boundary",
    "plot_distributions",
    "plot_history",
    "plot_image_grid",
    "plot_jacobian",
    "plot_loss_and_accuracy",
    "plot_matrix",
    "plot_saliency",
    "plot_update_ratio",
    "record",
    "saliency",
    "save_loss_curve",
    "summary",
    "vjp",
]
