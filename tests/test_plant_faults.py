"""Whether every fault can still be planted: the line that it makes wrong is there, once."""

import pytest
from plant_faults import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_its_line_is_there_once(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.right) == 1
