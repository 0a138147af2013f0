"""Normalizations."""

import numpy as np

from backhand.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from tests.cases import Case, grid, uniform

IMAGES = (4, 3, 2, 5)
BATCHES = [
    (BatchNorm1d, (5, 3)),
    (BatchNorm1d, (4, 3, 2)),
    (BatchNorm2d, IMAGES),
    (BatchNorm3d, (2, 3, 2, 3, 2)),
]
# One sample is enough where the channels have axes of their own; two values are the fewest.
SMALL = [(BatchNorm1d, (2, 3)), (BatchNorm1d, (1, 3, 2)), (BatchNorm2d, (1, 3, 2, 1)), (BatchNorm3d, (1, 3, 1, 1, 2))]
INSTANCES = [
    (InstanceNorm1d, (2, 3, 4)),
    (InstanceNorm1d, (3, 4)),
    (InstanceNorm2d, IMAGES),
    (InstanceNorm2d, (3, 2, 5)),
    (InstanceNorm3d, (2, 3, 2, 3, 2)),
    (InstanceNorm3d, (3, 1, 4, 1)),
]

CASES = [
    *(Case(cls, (3,), [shape]) for cls, shape in BATCHES),
    *(Case(cls, (3,), [shape], eval=True) for cls, shape in BATCHES),
    Case(BatchNorm1d, (3,), [(5, 3)], kwargs={"momentum": None, "eps": 0.1}),
    Case(BatchNorm2d, (3,), [IMAGES], kwargs={"affine": False}),
    Case(BatchNorm2d, (3,), [IMAGES], kwargs={"bias": False}),
    Case(BatchNorm2d, (3,), [IMAGES], eval=True, kwargs={"affine": False}),
    Case(BatchNorm2d, (3,), [IMAGES], eval=True, kwargs={"track_running_stats": False}),
    Case(LayerNorm, (4,), [(2, 3, 4)]),
    Case(LayerNorm, (4,), [(4,)]),
    Case(LayerNorm, ((3, 4),), [(2, 3, 4)]),
    Case(LayerNorm, (4,), [(3, 4)], eval=True),
    Case(LayerNorm, (4,), [(3, 4)], kwargs={"bias": False}),
    Case(LayerNorm, (4,), [(3, 4)], kwargs={"elementwise_affine": False}),
    Case(RMSNorm, (4,), [(2, 3, 4)]),
    Case(RMSNorm, ((3, 4),), [(2, 3, 4)], kwargs={"eps": 0.1, "elementwise_affine": False}),
    Case(GroupNorm, (2, 4), [(2, 4, 3)]),
    Case(GroupNorm, (3, 6), [(2, 6, 2, 2)], kwargs={"bias": False}),
    Case(GroupNorm, (1, 4), [(3, 4)], kwargs={"affine": False, "eps": 0.1}),
    *(Case(cls, (3,), [shape]) for cls, shape in INSTANCES),
    *(Case(cls, (3, 1e-5, 0.3, True, True), [shape]) for cls, shape in INSTANCES),
    *(Case(cls, (3, 1e-5, 0.3, True, True), [shape], eval=True) for cls, shape in INSTANCES),
    Case(LocalResponseNorm, (3, 0.5, 0.75, 1.2), [(2, 4, 3)]),
    Case(LocalResponseNorm, (4, 0.5, 0.75), [(2, 5, 2, 2)]),  # an even window
    Case(LocalResponseNorm, (7, 0.5), [(2, 3, 2)]),  # wider than all channels
]

GRID = [
    *(
        Case(cls, (3,), [shape], eval=evaluate, kwargs={**case.kwargs})
        for cls, shape in BATCHES
        for evaluate in (False, True)
        for case in grid(
            cls,
            [],
            eps=[1e-5, 0.3],
            momentum=[0.1, None, 0.0, 1.0],
            affine=[True, False],
            track_running_stats=[True, False],
        )
    ),
    *(Case(cls, (3,), [shape], kwargs={"bias": False}) for cls, shape in BATCHES),
    *(Case(cls, (3,), [shape]) for cls, shape in SMALL),
    *(Case(cls, (3,), [shape], eval=True) for cls, shape in SMALL),
    Case(BatchNorm1d, (1,), [(3, 1)]),
    Case(BatchNorm1d, (3,), [(1, 3)], eval=True),
    Case(BatchNorm2d, (3,), [np.full(IMAGES, 2.5)]),  # a variance of 0
    *grid(
        LayerNorm,
        [(2, 3, 4)],
        4,
        eps=[1e-5, 0.0, 0.3],
        elementwise_affine=[True, False],
        bias=[True, False],
    ),
    *(Case(LayerNorm, (4,), [shape]) for shape in [(4,), (1, 4), (2, 1, 3, 4), (2, 3, 1, 2, 4)]),
    *(Case(LayerNorm, (sizes,), [(2, 3, 4)]) for sizes in [(4,), [4], (3, 4), (2, 3, 4)]),
    Case(LayerNorm, (1,), [(3, 1)]),  # every xhat is 0
    Case(LayerNorm, (5,), [np.full((2, 5), -3.0)]),
    *grid(RMSNorm, [(2, 3, 4)], 4, eps=[None, 1e-5, 0.0, 0.3], elementwise_affine=[True, False]),
    *(Case(RMSNorm, (4,), [shape]) for shape in [(4,), (1, 4), (2, 1, 3, 4)]),
    *(Case(RMSNorm, (sizes,), [(2, 3, 4)]) for sizes in [(4,), [4], (3, 4), [2, 3, 4]]),
    Case(RMSNorm, (4,), [np.zeros((2, 4))]),
    Case(RMSNorm, (4, 0.0), [np.zeros((2, 4))]),  # nan
    *(
        Case(GroupNorm, (groups, 6), [shape], kwargs=case.kwargs)
        for groups in (1, 2, 3, 6)
        for shape in [(2, 6), (1, 6, 3), (3, 6, 2, 3), (2, 6, 2, 1, 3), (2, 6, 1, 2, 1, 2)]
        for case in grid(GroupNorm, [], eps=[1e-5, 0.3], affine=[True, False], bias=[True, False])
    ),
    *(
        Case(cls, (3,), [shape], eval=evaluate, kwargs=case.kwargs)
        for cls, shape in INSTANCES
        for evaluate in (False, True)
        for case in grid(
            cls,
            [],
            eps=[0.3],
            momentum=[0.1, None, 1.0],
            affine=[True, False],
            track_running_stats=[True, False],
            bias=[True, False],
        )
    ),
    Case(InstanceNorm2d, (7,), [IMAGES]),  # num_features is not used
    Case(InstanceNorm1d, (3,), [(2, 3, 1)], eval=True, kwargs={"track_running_stats": True}),
    Case(InstanceNorm2d, (3,), [np.full(IMAGES, 2.5)]),  # a variance of 0
    *(
        Case(LocalResponseNorm, (size, alpha, beta, k), [shape])
        for size in (1, 2, 3, 4, 5, 8)
        for alpha, beta, k in [(1e-4, 0.75, 1.0), (1, 0.5, 2), (2.5, 1.5, 0.3), (-0.1, 0.75, 3.0), (1, 0, 0)]
        for shape in [(2, 5, 3), (2, 6, 2, 3), (1, 3, 2, 1, 2)]
    ),
    Case(LocalResponseNorm, (3,), [(2, 3, 2, 1, 2, 2)]),
    # what torch takes too: roots of negative numbers, 0 / 0, a momentum beyond [0, 1]
    *(
        Case(cls, args, [x], kwargs={"eps": eps})
        for cls, args in [(LayerNorm, (4,)), (RMSNorm, (4,)), (GroupNorm, (3, 3)), (InstanceNorm1d, (3,))]
        for x in [np.ones((2, 3, 4)), uniform(2, 3, 4, high=3)]
        for eps in (-0.5, 0.0)
    ),
    Case(BatchNorm1d, (3,), [(5, 3)], kwargs={"momentum": -1.2}),
    Case(InstanceNorm1d, (3,), [(2, 3, 4)], kwargs={"momentum": -1.2, "track_running_stats": True}),
]
