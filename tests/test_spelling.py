"""The nearest of the known names."""

from calmkit.spelling import did_you_mean, nearest


def test_the_nearest_in_any_case():
    known = ["EnergyHead", "FlowHead", "seed"]
    assert nearest("flowhaed", known) == "FlowHead"
    assert nearest("SEDE", known) == "seed"
    assert nearest("xyz", known) is None and nearest("", known) is None
    assert did_you_mean("EnergHead", known) == " Did you mean EnergyHead?"
    assert did_you_mean("xyz", known) == ""
