"""Looking inside: gradient checks, traces, Jacobians, questions about training, tables and figures."""

from backhand.inspection.babysitting import (
    Activity,
    InitialLoss,
    UpdateRatio,
    dead_relus,
    initial_loss,
    saturation,
    update_ratio,
)
from backhand.inspection.calls import Call, Learned, Numbers
from backhand.inspection.circuit import Circuit
from backhand.inspection.circuit_plot import plot_circuit
from backhand.inspection.decision_boundary import plot_decision_boundary
from backhand.inspection.diagnose import Diagnosis, Finding, diagnose
from backhand.inspection.distributions import plot_activations, plot_distributions, plot_gradients, plot_update_ratio
from backhand.inspection.doctor import check_gradients
from backhand.inspection.faults import Fault
from backhand.inspection.flow_plot import plot_flow
from backhand.inspection.gradient_check import GradientReport, GradientRow
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
from backhand.inspection.memory_plot import plot_answer, plot_memory
from backhand.inspection.multiply_adds import multiply_adds
from backhand.inspection.nonfinite import NonFinite, find_nonfinite
from backhand.inspection.structure import Structure
from backhand.inspection.summary import Summary, SummaryRow, summary
from backhand.inspection.trace import Trace, record
from backhand.inspection.trial_runs import LRRange, Overfit, lr_range_test, overfit

__all__ = [
    "Activity",
    "Call",
    "Circuit",
    "Diagnosis",
    "Fault",
    "Finding",
    "GradientReport",
    "GradientRow",
    "Hessian",
    "InitialLoss",
    "Jacobian",
    "LRRange",
    "Learned",
    "LivePlot",
    "LossByInput",
    "LossByParameters",
    "NonFinite",
    "Numbers",
    "Overfit",
    "Saliency",
    "Structure",
    "Summary",
    "SummaryRow",
    "Trace",
    "UpdateRatio",
    "check_gradients",
    "check_layer",
    "confusion_matrix",
    "dead_relus",
    "diagnose",
    "find_nonfinite",
    "hessian",
    "hvp",
    "image_grid",
    "initial_loss",
    "jacobian",
    "jvp",
    "lr_range_test",
    "multiply_adds",
    "overfit",
    "plot_activations",
    "plot_answer",
    "plot_attention",
    "plot_circuit",
    "plot_confusion_matrix",
    "plot_decision_boundary",
    "plot_distributions",
    "plot_flow",
    "plot_gradients",
    "plot_history",
    "plot_image_grid",
    "plot_jacobian",
    "plot_loss_and_accuracy",
    "plot_matrix",
    "plot_memory",
    "plot_saliency",
    "plot_update_ratio",
    "record",
    "saliency",
    "saturation",
    "save_loss_curve",
    "summary",
    "update_ratio",
    "vjp",
]
