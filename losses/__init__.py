"""The scalar at the end of the chain; its backward() starts the gradient."""

from backhand.losses.base import Loss, Mean
from backhand.losses.binary import BCELoss, BCEWithLogitsLoss, MultiLabelSoftMarginLoss, SoftMarginLoss
from backhand.losses.classification import CrossEntropyLoss, NLLLoss
from backhand.losses.contrastive import InfoNCELoss, NTXentLoss
from backhand.losses.ctc import CTCLoss
from backhand.losses.distribution import GaussianNLLLoss, KLDivLoss, PoissonNLLLoss
from backhand.losses.embedding import CosineEmbeddingLoss, TripletMarginLoss
from backhand.losses.margin import HingeEmbeddingLoss, MarginRankingLoss, MultiLabelMarginLoss, MultiMarginLoss
from backhand.losses.regression import HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from backhand.losses.sequence import SequenceBCELoss, SequenceCrossEntropyLoss
from backhand.losses.variational import ELBOLoss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "ELBOLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "InfoNCELoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MarginRankingLoss",
    "Mean",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "NTXentLoss",
    "PoissonNLLLoss",
    "SequenceBCELoss",
    "SequenceCrossEntropyLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]
