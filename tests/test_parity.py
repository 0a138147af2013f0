"""Every layer and loss that torch.nn has under the same name, beside torch's, over the whole table and grid."""

import pytest

from tests.cases import families
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]  # those are torch's
torch = need("torch")

from tests import parity  # noqa: E402  (needs torch)

ROWS = [
    case
    for case in families("CASES") + families("GRID")
    if (hasattr(torch.nn, case.cls.__name__) if case.torch is None else case.torch)
]


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_same_as_torch(case):
    parity.agree(case)
