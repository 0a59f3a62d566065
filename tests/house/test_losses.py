"""The first losses of every training are those of the record, exact on the same kind of machine."""

import pytest
from house import losses, machine

STEPS = 3

# float32 has 24 bits. Other libraries and CPUs add up to a thousand terms in other orders.
TOLERANCE = 1000 * 2**-24


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return losses.collect(tmp_path_factory.mktemp("losses"), STEPS)


@pytest.mark.parametrize("stage", losses.STAGES)
@pytest.mark.parametrize("training", losses.TRAININGS)
def test_first_losses_are_those_of_the_record(training, stage, found):
    recorded, is_same_machine = machine.load("losses")
    name = f"{training}-zero{stage}"
    expected = recorded["losses"][name][:STEPS]
    assert len(recorded["losses"][name]) == recorded["steps"]

    if is_same_machine:
        assert found[name] == expected
    values = [float.fromhex(value) for value in found[name]]
    assert values == pytest.approx([float.fromhex(value) for value in expected], rel=TOLERANCE)
